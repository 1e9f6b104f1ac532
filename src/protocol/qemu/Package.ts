/**
 * What the package of a post-copy stream holds: LISTEN first, every device section, a PING for when they are loaded,
 * RUN last. The device sections are the same bytes as in a precopy stream, so an image needs nothing else of it.
 */
import * as Stream from "./Stream.ts"

const startsWith = (bytes: Uint8Array, prefix: Uint8Array) => prefix.every((byte, i) => bytes[i] === byte)

/** The device sections of a package; `undefined` when it is not built like this. */
export const devices = (bytes: Uint8Array): Uint8Array | undefined => {
  const first = Stream.postcopyListen()
  const last = Stream.postcopyRun()
  if (bytes.length < first.length + last.length || !startsWith(bytes, first)) return undefined
  if (!startsWith(bytes.subarray(bytes.length - last.length), last)) return undefined
  const inner = bytes.subarray(first.length, bytes.length - last.length)
  const ping = Stream.ping(0).subarray(0, 5)
  const at = inner.length - 9
  return (at >= 0 && startsWith(inner.subarray(at), ping) ? inner.subarray(0, at) : inner).slice()
}
