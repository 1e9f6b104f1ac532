/** Guest memory whose every page tells which page it is, so that a page in the wrong place is seen. */
export const PAGE = 4096

/** A page that no other page of the tests equals, and that is not uniform. */
export const pageOf = (idstr: string, page: number, size = PAGE): Uint8Array => {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = (i * 7 + page * 13 + idstr.length) & 0xff
  new DataView(bytes.buffer).setUint32(0, page + 1)
  bytes[4] = idstr.charCodeAt(0)
  return bytes
}

/** A block of `pages` pages; those listed in `uniform` repeat the byte given there. */
export const blockOf = (
  idstr: string,
  pages: number,
  uniform: Readonly<Record<number, number>> = {},
  size = PAGE
): Uint8Array => {
  const bytes = new Uint8Array(pages * size)
  for (let page = 0; page < pages; page++) {
    const fill = uniform[page]
    if (fill === undefined) bytes.set(pageOf(idstr, page, size), page * size)
    else bytes.fill(fill, page * size, (page + 1) * size)
  }
  return bytes
}
