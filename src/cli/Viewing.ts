/**
 * What commands with `--web` or `--report` share: a recorder that looks at the sides, a live page of what it sees, a
 * report file of what it has seen. Without either flag nothing of it is loaded and nobody looks.
 */
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { closeSync, openSync, rmSync, statSync } from "node:fs"
import { release } from "node:os"
import type { Ending, Picture, Sides } from "../web/Picture.ts"
import type { Action } from "../web/WebServer.ts"
import type { ControlClient } from "./ControlClient.ts"
import { type Failure, usage } from "./Failure.ts"
import { Output } from "./Output.ts"
import * as Rate from "./Rate.ts"
import { version } from "./Version.ts"

export interface WebAddress {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
}

/** PORT on the loopback interface, or HOST:PORT. */
export const parseWeb = (text: string): Option.Option<WebAddress> => {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):)?(\d{1,5})$/.exec(text)
  const port = Number(match?.[2] ?? Number.NaN)
  if (!(port <= 65535)) return Option.none()
  return Option.some({ host: (match?.[1] ?? "127.0.0.1").replace(/^\[(.*)\]$/, "$1"), port })
}

export const web = Flag.String("web").pipe(
  Flag.withMetavar("PORT"),
  Flag.withOptionalValue("0"),
  Flag.filterMap(parseWeb, () => "a port, or HOST:PORT to listen elsewhere than on the loopback interface"),
  Flag.withDescription("Show a live page at this port of the loopback interface (default: any free one)"),
  Flag.optional
)

/** `--web 8080` as well as `--web=8080`: the value may be left out, so the parser takes none that stands alone. */
export const joinWeb = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const joined: Array<string> = []
  for (const [i, argument] of args.entries()) {
    if (args[i - 1] === "--web" && /(^|:)\d+$/.test(argument) && !args.slice(0, i).includes("--")) {
      joined[joined.length - 1] = `--web=${argument}`
    } else joined.push(argument)
  }
  return joined
}

export const report = Flag.String("report").pipe(
  Flag.withMetavar("FILE"),
  Flag.filterMap(
    (path) => /.\.(html|json)$/i.test(path) ? Option.some(path) : Option.none(),
    () => "a file that ends in .html (a page to look at) or .json (for programs)"
  ),
  Flag.withDescription("Write a report with pictures and all figures to FILE.html, or FILE.json"),
  Flag.optional
)

export interface Options {
  readonly web: Option.Option<WebAddress>
  readonly report: Option.Option<string>
  readonly title: string
  /** Configuration, for the foot of page and report. */
  readonly about: ReadonlyArray<readonly [name: string, value: string]>
}

export interface View {
  /** Looks from now on. `cells`: of the map that is wanted; 0 is none. `source`: whom to ask for changes. */
  readonly attach: (
    look: (cells: number) => Effect.Effect<Sides, unknown>,
    source: ControlClient | undefined
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Completes when somebody has opened the page, or nobody did for a while; at once without one. */
  readonly opened: Effect.Effect<void>
  /** Shows and writes how it ended. */
  readonly finish: (ending: Ending) => Effect.Effect<void, Failure>
  /** Where a person watches: keeps the page until the command is interrupted. */
  readonly linger: Effect.Effect<void>
}

const none: View = {
  attach: () => Effect.void,
  opened: Effect.void,
  finish: () => Effect.void,
  linger: Effect.void
}

/** Cells of the map: 128 columns on a wide screen. */
const CELLS = 2048

/** Milliseconds between two looks where nobody looks at the result before the end: the curve has more points. */
const REPORT_INTERVAL = 25

/** How long the first look at the page is waited for: after that it has to do without a viewer. */
const PATIENCE = "15 seconds"

const act = (source: () => ControlClient | undefined) => (action: Action): Effect.Effect<string> =>
  Effect.suspend((): Effect.Effect<string> => {
    const client = source()
    if (client === undefined) return Effect.succeed("the source is on another host: ask there")
    const told = (words: string) => <A, E extends { readonly message: string }>(asked: Effect.Effect<A, E>) =>
      Effect.match(asked, { onFailure: ({ message }) => message, onSuccess: () => words })
    switch (action.action) {
      case "bandwidth": {
        const { bytesPerSecond } = action
        const words = `the limit is ${Rate.format(bytesPerSecond ?? undefined)}`
        return client.ask((guest) => guest.SetBandwidth({ bytesPerSecond })).pipe(told(words))
      }
      case "background": {
        const words = action.on ? "background pages are sent again" : "only pages that are asked for are sent"
        return client.ask((guest) => guest.SetBackground({ on: action.on })).pipe(told(words))
      }
      case "cancel":
        return client.ask((guest) => guest.Cancel()).pipe(told("cancelled; the guest runs on at the source"))
    }
  })

/** A path that cannot be written is found out before anything is moved. Where nothing came of it no empty file is left. */
const claim = (path: string) =>
  Effect.acquireRelease(
    Effect.try({
      try: () => closeSync(openSync(path, "a")),
      catch: (error) =>
        usage(`the report ${path} cannot be written (${(error as NodeJS.ErrnoException).code}); give another`)
    }),
    () =>
      Effect.sync(() => {
        if (statSync(path, { throwIfNoEntry: false })?.isFile() && statSync(path).size === 0) {
          rmSync(path, { force: true })
        }
      })
  )

export const open = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<View, Failure, Scope.Scope> {
  const path = Option.getOrUndefined(options.report)
  const address = Option.getOrUndefined(options.web)
  if (path === undefined && address === undefined) return none
  if (path !== undefined) yield* claim(path)
  const output = yield* Output
  const [Recorder, ReportFile, WebServer] = yield* Effect.promise(() =>
    Promise.all([import("../web/Recorder.ts"), import("../web/ReportFile.ts"), import("../web/WebServer.ts")])
  )
  const recorder = yield* Recorder.make(address === undefined ? REPORT_INTERVAL : Recorder.INTERVAL)
  const about = [
    ["postcopy", version],
    ["Node.js", process.versions.node],
    ["Linux", release()],
    ["at", new Date().toISOString()],
    ...options.about
  ] as const
  let source: ControlClient | undefined
  if (address !== undefined) {
    const { url } = yield* WebServer.serve({
      ...address,
      recorder,
      title: options.title,
      about,
      act: act(() => source)
    }).pipe(
      Effect.mapError((error) =>
        usage(`the page cannot be served at ${address.host}:${address.port} (${error.code}); give --web another port`)
      )
    )
    yield* output.emit({ event: "web", url }, `live page: ${url}`)
  }
  const contents = (picture: Picture) => ({ title: options.title, about, picture, samples: recorder.samples() })
  return {
    attach: (look, client) =>
      Effect.suspend(() => {
        source = client
        return recorder.attach(look(address === undefined ? 0 : CELLS), look(CELLS))
      }),
    opened: address === undefined ? Effect.void : Effect.asVoid(Effect.timeoutOption(recorder.seen, PATIENCE)),
    finish: (ending) =>
      Effect.gen(function*() {
        yield* recorder.finish(ending)
        if (path === undefined) return
        yield* Effect.try({
          try: () => ReportFile.write(path, contents(recorder.latest())),
          catch: (error) =>
            usage(
              `the report ${path} could not be written (${
                (error as NodeJS.ErrnoException).code
              }); give --report a place with room`
            )
        })
        yield* output.note(`report: ${path}`)
      }),
    linger: address !== undefined && process.stdout.isTTY && !output.json
      ? Effect.andThen(output.note("the page stays until Ctrl-C"), Effect.never)
      : Effect.void
  }
})
