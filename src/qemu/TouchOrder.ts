/**
 * The order in which a guest first touched its pages, as a file: one `block offset` a line, the offset in hexadecimal.
 * A restore records it from what is asked for; a later one of the same image pushes those pages first.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { PageName } from "../actors/PageOrder.ts"
import { InvalidArgument } from "../MigrationError.ts"
import type { SourceRequest } from "../protocol/Dialect.ts"
import { TARGET_PAGE_SIZE } from "../protocol/qemu/Constants.ts"

/** Reads a recording. */
export const read = (path: string): Effect.Effect<ReadonlyArray<PageName>, InvalidArgument> =>
  Effect.gen(function*() {
    const text = yield* Effect.try({
      try: () => fs.readFileSync(path, "utf8"),
      catch: (error) =>
        new InvalidArgument({ detail: `cannot read the recording ${path} (${(error as NodeJS.ErrnoException).code})` })
    })
    const pages: Array<PageName> = []
    for (const [i, line] of text.split("\n").entries()) {
      if (line === "") continue
      const match = /^(.+) (0x[0-9a-f]{1,13})$/.exec(line)
      const offset = Number(match?.[2])
      if (match === null || offset % TARGET_PAGE_SIZE !== 0) {
        return yield* new InvalidArgument({
          detail: `line ${
            i + 1
          } of ${path} is no "block offset": it is no recording; give one that restore --record wrote`
        })
      }
      pages.push({ idstr: match[1]!, page: offset / TARGET_PAGE_SIZE })
    }
    return pages
  })

/** Notes first touches; each page once. */
export class TouchRecorder {
  readonly #seen = new Set<string>()

  /** Of a request for a huge page its first page stands for all. */
  note(request: SourceRequest): void {
    if (request._tag !== "OnDemand" || request.pages.length === 0) return
    this.#seen.add(`${request.idstr} 0x${(request.pages[0]! * TARGET_PAGE_SIZE).toString(16)}`)
  }

  get count(): number {
    return this.#seen.size
  }

  /** Replaces the file, whole. */
  write(path: string): Effect.Effect<void, InvalidArgument> {
    return Effect.try({
      try: () => {
        fs.writeFileSync(`${path}.partial`, [...this.#seen].map((line) => `${line}\n`).join(""))
        fs.renameSync(`${path}.partial`, path)
      },
      catch: (error) =>
        new InvalidArgument({
          detail: `cannot write the recording ${path} (${(error as NodeJS.ErrnoException).code}); give another path`
        })
    })
  }
}
