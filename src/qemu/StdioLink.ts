/**
 * The link over this process's stdin and stdout, as QEMU gives them to a program that it starts itself
 * (`-incoming "exec:…"`): it reads what that one prints and says on its stdin what it wants.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Unsupported } from "../MigrationError.ts"
import * as Binding from "../native/Binding.ts"
import type { Link } from "../services/Link.ts"

/** Nothing else may write to stdout while it is open. */
export const open: Effect.Effect<Link, Unsupported, Scope.Scope> = Effect.gen(function*() {
  const addon = Binding.load()
  if (addon === undefined) {
    return yield* new Unsupported({
      detail: `the addon is needed to serve QEMU over stdin and stdout: ${Binding.failure()}`
    })
  }
  const { READABLE, WRITABLE } = addon.constants
  const input = addon.Descriptor.duplicate(0)
  const output = addon.Descriptor.duplicate(1)
  for (const descriptor of [input, output]) addon.setNonBlocking(descriptor, true)
  const readable = new addon.Poller(input)
  const writable = new addon.Poller(output)
  let onReady: (readable: boolean, writable: boolean) => void = () => {}
  let reads = false
  let writes = false
  const close = () => {
    onReady = () => {}
    for (const one of [readable, writable, input, output]) one.close()
  }
  const link: Link = {
    read: (into, offset, length) => addon.read(input, into, offset, length),
    write: (from, offset, length) => addon.write(output, from, offset, length),
    attach: (callback) => {
      onReady = callback
    },
    watch: (r, w) => {
      if (r !== reads) readable.watch(r ? READABLE : 0, () => onReady(true, false))
      if (w !== writes) writable.watch(w ? WRITABLE : 0, () => onReady(false, true))
      reads = r
      writes = w
    },
    // A pipe does not tell, and nothing here waits for it: the destination confirms by itself.
    unsent: () => 0,
    unsentIsUnread: false,
    close,
    release: close,
    descriptor: undefined,
    peer: "QEMU"
  }
  return yield* Effect.acquireRelease(Effect.succeed(link), () => Effect.sync(close))
})
