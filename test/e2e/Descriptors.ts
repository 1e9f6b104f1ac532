/** A socketpair that is handed to two commands through their stdio. */
import { createRequire } from "node:module"
import { onTestFinished } from "vitest"

const addon: typeof import("userfaultfd-napi") = createRequire(import.meta.url)("userfaultfd-napi")

/** Two connected stream sockets, and how to close this process's ends once the commands have theirs. */
export const socketpair = (): { readonly here: number; readonly there: number; readonly close: () => void } => {
  const ends = addon.socketpair(addon.constants.SOCK_STREAM)
  const close = () => ends.forEach((end) => end.close())
  onTestFinished(close)
  return { here: ends[0].fd, there: ends[1].fd, close }
}
