/**
 * The delta of an XBZRLE record against the page's last content: alternately how many bytes stay (uleb128), how many
 * follow (uleb128), and those. It ends behind bytes that follow; what it does not reach stays.
 */

/** A number of one or two bytes at `at`: its value and where the next one begins. Negative: it does not end in time. */
const number = (delta: Uint8Array, at: number): readonly [value: number, next: number] => {
  const first = delta[at]
  if (first === undefined) return [-1, at]
  if (first < 0x80) return [first, at + 1]
  const second = delta[at + 1]
  if (second === undefined || second >= 0x80) return [-1, at]
  return [(first & 0x7f) | (second << 7), at + 2]
}

/** Changes `page` in place; why not, when the delta is wrong. The page is then of no use. */
export const apply = (page: Uint8Array, delta: Uint8Array): string | undefined => {
  let at = 0
  let to = 0
  while (at < delta.length) {
    const [skip, afterSkip] = number(delta, at)
    if (skip < 0 || (skip === 0 && at > 0)) return `no length of unchanged bytes at ${at}`
    const [count, from] = number(delta, afterSkip)
    if (count < 1) return `no length of changed bytes at ${afterSkip}`
    to += skip
    if (to + count > page.length) return `the delta leaves the page at ${afterSkip}`
    if (from + count > delta.length) return `the delta ends inside the bytes at ${from}`
    page.set(delta.subarray(from, from + count), to)
    to += count
    at = from + count
  }
  return undefined
}
