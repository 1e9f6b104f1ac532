/**
 * A program that embeds `migrate` and replaces what is underneath: shorter patience than the default, and links that
 * count what goes over them. Both sides run in this process, the guest moves from one thread to another.
 *
 *   node examples/embedding/program.ts
 */
import { Effect, Layer } from "effect"
import { Guest, listen, migrate } from "postcopy"
import { defaultSettings, type Link, Links, Settings } from "postcopy/services"

/** Any link, with its bytes counted. Everything else about it stays. */
const counting = (link: Link, count: (bytes: number) => void): Link => ({
  ...link,
  write: (from, offset, length) => {
    const written = link.write(from, offset, length)
    if (written > 0) count(written)
    return written
  }
})

let sent = 0

const countedLinks = Layer.effect(
  Links,
  Effect.map(Links, (links) => ({
    ...links,
    connect: (to) => Effect.map(links.connect(to), (link) => counting(link, (bytes) => void (sent += bytes)))
  }))
)

const patience = Layer.succeed(Settings, { ...defaultSettings, connectMillis: 2_000, drainMillis: 2_000 })

const ledger = new URL("../ledger/guest.ts", import.meta.url)

const program = Effect.gen(function*() {
  const incoming = yield* listen({ guest: ledger, from: "tcp:127.0.0.1:0" })
  const guest = yield* Guest.run(ledger)
  yield* guest.call({ from: 1, to: 2, amount: 300 })

  const report = yield* migrate({ guest, to: incoming.uri })
  yield* incoming.report

  const answer = yield* incoming.guest.call({ account: 2 })
  console.log(JSON.stringify({ state: report.state, pages: report.pages.total, answer, counted: sent > 2 ** 20 }))
})

await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Layer.merge(countedLinks, patience))))
// Nothing of the guest is left to wait for.
process.exit()
