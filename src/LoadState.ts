/**
 * Reads the savevm stream at the destination up to and including its EOF byte. The block list is judged, and the memory
 * registered, the moment it has arrived; device state is only kept. What was read beyond EOF belongs to the daemon.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { LoadedBlock } from "./guests/Vcpu.ts"
import { LinkFailed, MalformedInput, type Unsupported } from "./MigrationError.ts"
import type { RamBlock } from "./protocol/RamBlock.ts"
import * as Savevm from "./protocol/umem/Savevm.ts"
import type { RunningGuest } from "./RunningGuest.ts"
import type { Link } from "./services/Link.ts"
import * as LinkIo from "./services/LinkIo.ts"
import { type Registration, Userfaultfd } from "./services/Userfaultfd.ts"

/** Bytes read at once; the most that can be left over for the daemon. */
const READ_BYTES = 64 * 1024
/** WebAssembly memory grows by this much. */
const WASM_PAGE = 64 * 1024

export interface LoadedState {
  readonly registration: Registration
  /** `undefined` when no `guest` section came. */
  readonly deviceState: Uint8Array | undefined
  readonly remainder: Uint8Array
  readonly totalPages: number
  /** Bytes of the savevm stream: what was read ahead is not among them. */
  readonly bytesRead: number
}

export interface Options {
  readonly link: Link
  readonly guest: RunningGuest
  readonly targetPageSize: number
  readonly onFirstByte: Effect.Effect<void>
}

const malformed = (offset: number, detail: string) => new MalformedInput({ offset, detail })

const mib = (bytes: number) => bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20} MiB` : `${bytes} bytes`

/** Why an announced block cannot be one of this guest's; `undefined` when it can, as far as its length is known yet. */
const judge = (own: ReadonlyArray<LoadedBlock>, idstr: string, length: number | undefined): string | undefined => {
  const block = own.find((candidate) => candidate.idstr === idstr)
  if (block === undefined) {
    return `RAM block "${idstr}" is none of the guest's here: both sides must run the same guest`
  }
  if (length === undefined || length === block.length) return undefined
  if (block.maximum === block.length) {
    return `RAM block "${idstr}" has ${mib(length)} at the source and ${
      mib(block.length)
    } here: start both sides with the same --memory`
  }
  if (length < block.length || length > block.maximum || length % WASM_PAGE !== 0) {
    return `RAM block "${idstr}" has ${length} bytes at the source: a multiple of 64 KiB from ${block.length} to ${block.maximum} is possible here`
  }
  return undefined
}

/** Checks that no block is absent from the whole list, and grows those that are larger at the source. */
const accept = Effect.fnUntraced(function*(
  guest: RunningGuest,
  announced: ReadonlyArray<RamBlock>,
  offset: number
): Effect.fn.Return<void, MalformedInput> {
  const own = guest.vcpu.blocks()
  for (const { idstr } of own) {
    if (!announced.some((block) => block.idstr === idstr)) {
      return yield* malformed(
        offset,
        `the source did not announce RAM block "${idstr}": both sides must run the same guest`
      )
    }
  }
  for (const { idstr, length } of announced) {
    if (own.some((block) => block.idstr === idstr && block.length === length)) continue
    yield* guest.vcpu.grow(idstr, length).pipe(
      Effect.mapError((error) =>
        malformed(offset, `RAM block "${idstr}" cannot grow to ${mib(length)} here: ${error.message}`)
      )
    )
  }
})

/** Reads up to the switchover. Registered memory is released with the scope, or by its `release`. */
export const loadState = Effect.fnUntraced(function*(
  { guest, link, onFirstByte, targetPageSize }: Options
): Effect.fn.Return<LoadedState, MalformedInput | LinkFailed | Unsupported, Scope.Scope> {
  const uffd = yield* Userfaultfd
  const own = guest.vcpu.blocks()
  const decoder = Savevm.decoder({ targetPageSize, refuseBlock: (idstr, length) => judge(own, idstr, length) })
  const buffer = new Uint8Array(READ_BYTES)
  let bytesRead = 0
  let registration: Registration | undefined
  let deviceState: Uint8Array | undefined
  let totalPages = 0

  while (true) {
    const outcome = decoder.next()
    switch (outcome._tag) {
      case "NeedMore": {
        const n = yield* LinkIo.readSome(link, buffer)
        if (n === 0) decoder.finish()
        else {
          if (bytesRead === 0) yield* onFirstByte
          bytesRead += n
          decoder.push(buffer.subarray(0, n))
        }
        break
      }
      case "End":
        return yield* new LinkFailed({ code: "EOF", detail: "the source closed the connection before the switchover" })
      case "Malformed":
        return yield* outcome.truncated
          ? new LinkFailed({
            code: "EOF",
            detail: `the source closed the connection before the switchover (byte ${outcome.offset})`
          })
          : malformed(outcome.offset, `the source sent what is no guest: ${outcome.message} (byte ${outcome.offset})`)
      case "Message": {
        const { message } = outcome
        if (message._tag === "Ram" && message.record._tag === "MemSize") {
          if (registration !== undefined) {
            return yield* malformed(outcome.offset, "the source announced its RAM blocks twice")
          }
          yield* accept(guest, message.record.blocks, outcome.offset)
          const blocks = guest.vcpu.blocks()
          totalPages = blocks.reduce((sum, { length }) => sum + Math.ceil(length / targetPageSize), 0)
          registration = yield* uffd.register(blocks, () => !guest.begun)
        } else if (message._tag === "Device" && message.name === "guest") deviceState = message.data.slice()
        else if (message._tag === "Eof") {
          if (registration === undefined) {
            return yield* malformed(outcome.offset, "the source switched over without announcing its RAM blocks")
          }
          const remainder = decoder.remainder()
          return { registration, deviceState, remainder, totalPages, bytesRead: bytesRead - remainder.length }
        }
      }
    }
  }
})
