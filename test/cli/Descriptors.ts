/** The addon's sockets, for tests that hand descriptors about. */
import type { Descriptor } from "userfaultfd-napi"
import * as Binding from "../../src/native/Binding.ts"

export const addon = Binding.require()

/** Two connected stream sockets. */
export const socketpair = (): [Descriptor, Descriptor] => addon.socketpair(addon.constants.SOCK_STREAM)

/** Writes and reads little enough to never wait. */
export const pass = (from: Descriptor, to: Descriptor, text: string): string => {
  addon.write(from, new TextEncoder().encode(text), 0, text.length)
  const bytes = new Uint8Array(64)
  return new TextDecoder().decode(bytes.subarray(0, Math.max(0, addon.read(to, bytes, 0, bytes.length))))
}
