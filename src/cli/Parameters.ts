/**
 * Flags and arguments that several commands share, with their checks: what cannot be meant is refused while the command
 * line is read, before anything is touched.
 */
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { statSync } from "node:fs"
import { resolve } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { builtins } from "../guests/GuestUrl.ts"
import { DEFAULT_MICROS, MAX_MICROS } from "../services/BusyPoll.ts"
import { type Failure, usage } from "./Failure.ts"
import * as Rate from "./Rate.ts"

/**
 * A flag that is there or not. It never takes the next word, which may be a positional `true` or `1` (JSON for `call`).
 */
export const toggle = (name: string, description: string): Flag.Flag<boolean> =>
  Flag.Boolean(name).pipe(
    Flag.withoutNegation,
    Flag.withOptionalValue("true"),
    Flag.withDefault(false),
    Flag.withDescription(description)
  )

/** `--json`. Its value is read from `Output`, which exists before the command line is parsed. */
export const Json = GlobalFlag.Setting("json")({
  flag: toggle("json", "Machine-readable: one JSON object a line on stdout, everything else on stderr")
})

/** For a process that was started by another one for itself: it goes when that one goes, in whatever way. */
export const leash = toggle("leash", "End when stdin ends").pipe(Flag.withHidden)

export const control = Flag.String("control").pipe(
  Flag.withMetavar("PATH"),
  Flag.withDescription("Control socket of the guest's process")
)

const LARGEST_MIB = 2 ** 24

export const parseMemory = (text: string): Option.Option<number> => {
  const mebibytes = /^\d{1,9}$/.test(text) ? Number(text) : 0
  return mebibytes >= 1 && mebibytes <= LARGEST_MIB ? Option.some(mebibytes) : Option.none()
}

export const memory = Flag.String("memory").pipe(
  Flag.withMetavar("MIB"),
  Flag.filterMap(parseMemory, () => `a positive whole number of MiB, at most ${LARGEST_MIB}`),
  Flag.withDescription("Guest memory in MiB, for guests that can choose"),
  Flag.optional
)

export const maxBandwidth = Flag.String("max-bandwidth").pipe(
  Flag.withMetavar("RATE"),
  Flag.filterMap(Rate.parse, () => Rate.expected),
  Flag.withDescription("Limit in bytes per second, with an optional k, M or G (powers of 1024)")
)

export const nobg = toggle("nobg", "Send only pages that are asked for")

export const parseBusyPoll = (text: string): Option.Option<number> => {
  const micros = /^\d{1,4}$/.test(text) ? Number(text) : Infinity
  return micros <= MAX_MICROS ? Option.some(micros) : Option.none()
}

export const busyPoll = Flag.String("busy-poll").pipe(
  Flag.withMetavar("MICROSECONDS"),
  Flag.filterMap(parseBusyPoll, () => `a whole number of microseconds, at most ${MAX_MICROS}; 0 is off`),
  Flag.withDescription(
    `How long to wait for the next page request without sleeping (default ${DEFAULT_MICROS}, 0 = off)`
  ),
  Flag.optional
)

/** The most pages that may run ahead of one that is asked for, on either side. */
const MOST_AHEAD = 4096

export const parsePrefault = (text: string): Option.Option<{ forward: number; backward: number }> => {
  const [, forward, backward = "0"] = /^(\d{1,5})(?:,(\d{1,5}))?$/.exec(text) ?? []
  const ahead = { forward: Number(forward ?? Infinity), backward: Number(backward) }
  return ahead.forward <= MOST_AHEAD && ahead.backward <= MOST_AHEAD ? Option.some(ahead) : Option.none()
}

export const prefault = Flag.String("prefault").pipe(
  Flag.withMetavar("FORWARD[,BACKWARD]"),
  Flag.filterMap(parsePrefault, () => `pages behind and before each page asked for, at most ${MOST_AHEAD}: 8 or 8,2`),
  Flag.withDescription("Send this many pages behind (and before) each page that is asked for"),
  Flag.optional
)

/** A number as C writes it: decimal, 0x… or octal with a leading 0. Only bit 0 means something. */
export const parsePostcopyFlags = (text: string): Option.Option<number> => {
  const value = /^0[xX][0-9a-fA-F]{1,8}$/.test(text)
    ? Number.parseInt(text, 16)
    : /^0[0-7]{0,11}$/.test(text)
    ? Number.parseInt(text, 8)
    : /^[1-9]\d{0,9}$/.test(text)
    ? Number(text)
    : Number.NaN
  return value === 0 || value === 1 ? Option.some(value) : Option.none()
}

export const postcopyFlags = Flag.String("postcopy-flags").pipe(
  Flag.withMetavar("N"),
  Flag.filterMap(
    parsePostcopyFlags,
    () => "a number like 1, 0x1 or 01; bit 0 (fault requests) is the only one there is"
  ),
  Flag.withDescription("Bit 0: the daemon asks the guest's process to take faults, and the migration ends by pages"),
  Flag.withDefault(0)
)

export const guest = Argument.String("guest").pipe(
  Argument.withDescription("Path of a guest module, or a built-in guest: counter, sqlite")
)

/** The module to load: built-in names stay names, everything else is a file. */
export const resolveGuest = Effect.fnUntraced(function*(text: string): Effect.fn.Return<URL | string, Failure> {
  if ((builtins as ReadonlyArray<string>).includes(text)) return text
  const isUrl = text.startsWith("file:")
  if (isUrl && !(URL.canParse(text) && new URL(text).host === "")) {
    return yield* usage(`"${text}" is no file URL of this host; give the path of a guest module`)
  }
  const path = isUrl ? fileURLToPath(text) : resolve(text)
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats === undefined) {
    return yield* usage(
      `there is no guest module ${path}; give the path of one, or a built-in name: ${builtins.join(", ")}`
    )
  }
  if (!stats.isFile()) return yield* usage(`the guest module ${path} is not a file; give the path of the module itself`)
  return pathToFileURL(path)
})

export const uri = Argument.String("uri").pipe(
  Argument.withDescription("tcp:HOST:PORT, unix:PATH or fd:N")
)
