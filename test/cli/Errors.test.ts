/**
 * Errors say what, where and the remedy. Every error class is built with every place that the guest can be in; every
 * sentence in the sources that is made for a user is read; and what users do wrong most often is done to the real commands.
 */
import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { onTestFinished } from "vitest"
import * as Failure from "../../src/cli/Failure.ts"
import { GuestError, Phase } from "../../src/guests/GuestError.ts"
import * as Errors from "../../src/MigrationError.ts"
import { directory, start } from "./Postcopy.ts"

/** What happened, then what can be done: two halves at least. */
const halves = (message: string) => message.split(/[;:,] /).length

const detail = "something went wrong at unix:/run/link"

const reasons: ReadonlyArray<Errors.Reason> = [
  new Errors.InvalidArgument({ detail }),
  new Errors.Refused({ detail }),
  new Errors.MalformedInput({ detail, offset: 7 }),
  new Errors.Unsupported({ detail }),
  new Errors.LinkFailed({ detail, code: "EIO" }),
  new Errors.DaemonFailed({ detail }),
  new Errors.Cancelled({ detail }),
  ...Phase.literals.map((phase) => new Errors.GuestFailed({ detail, phase }))
]

/** These say in their detail what would be right: where they are made, which the next test reads. */
const explainsItself: ReadonlyArray<string> = ["InvalidArgument", "Refused", "Unsupported"]

/** Text of the sources that becomes a user's: string literals right behind these words. */
const made =
  /(?:[^a-zA-Z]usage\(|new (?:InvalidArgument|Refused|Unsupported)\(\{\s*detail:|#refused\(|new Failure\(\{[^}]*?message:)\s*(?:\/\/[^\n]*\n\s*)?((?:`(?:[^`\\]|\\.)*`)|(?:"(?:[^"\\]|\\.)*"))/g

/** Words that tell somebody to do something, or what is expected of them. */
const tells =
  /\b(give|use|choose|try|start|run|end|quit|remove|create|open it|wait|see|look|read|quote|receive again|migrate (?:it|again)|resume|report it|report (?:this|is)|run npm|needed|expected|is possible|set it|pass|cancel it|to take|leave out|reinstall|save the|--help)\b/

const sources = () => {
  const folder = fileURLToPath(new URL("../../src/", import.meta.url))
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => ({ name, text: readFileSync(join(folder, name), "utf8") }))
}

describe("every error", () => {
  it.each(reasons)("of a migration says where the guest is and what can be done: $_tag $phase", (reason) => {
    for (const side of ["source", "destination"] as const) {
      for (const guest of Errors.GuestIs.literals) {
        const { message } = new Errors.MigrationError({ side, guest, reason })
        assert.isTrue(message.startsWith(detail), message)
        const needsNothing = guest === "none" &&
          !["GuestFailed", "DaemonFailed", "MalformedInput"].includes(reason._tag)
        if (needsNothing) continue
        assert.isAbove(message.length, detail.length, `${reason._tag}, ${guest}`)
        if (guest !== "none") assert.match(message, /guest/)
        if (guest !== "none" && !explainsItself.includes(reason._tag)) {
          assert.isAtLeast(halves(message.slice(detail.length + 2)), 2, message)
        }
      }
    }
  })

  it.each(Phase.literals)("of a guest says what can be done: %s", (phase) => {
    const { message } = Failure.fromGuest(new GuestError({ phase, message: "it threw" }))
    assert.isAtLeast(halves(message), 2, message)
  })

  it("that is made of a sentence in the sources tells what to do", () => {
    const found = sources().flatMap(({ name, text }) =>
      [...text.matchAll(made)].map(([, sentence]) => ({ name, sentence: sentence! }))
    )
    assert.isAbove(found.length, 60)
    // Asked for by the user, and nothing to mend.
    const done = [`"interrupted"`]
    // The remedy comes with what is put in; the addon's own words are read by its tests.
    const composed = /remedyOf\(|Binding\.failure\(\)|\$\{detail\}|message \?\? |\$\{meant|remedy\}`$/
    assert.deepStrictEqual(
      found.filter(({ sentence }) =>
        sentence.length > 2 && !done.includes(sentence) && !tells.test(sentence) && !composed.test(sentence)
      ),
      []
    )
  })
})

const guestOf = (text: string) => {
  const file = join(mkdtempSync(join(directory(), "guest-")), "guest.mjs")
  writeFileSync(file, text)
  return file
}

describe("a command's error", () => {
  it.each([
    [["run", "/nowhere/guest.ts"], ["/nowhere/guest.ts", "built-in name"]],
    [["run", "conter"], ["conter", "counter"]],
    [["status", "--control", "/nowhere/c"], ["/nowhere/c", "start the guest's process"]],
    [["run", "counter", "--control", "/nowhere/c"], ["/nowhere", "create it first"]],
    [["receive", "counter", "tcp:host"], ["tcp:host", "expected tcp:HOST:PORT"]],
    [["receive", "counter", "tcp:192.0.2.1:0"], ["192.0.2.1", "give an address of this host"]],
    [["receive", "counter", "unix:/nowhere/link"], ["/nowhere/link", "create its directory"]],
    [["receive", "counter", "fd:77"], ["fd:77", "use tcp: or unix:"]],
    [["migrate", "exec:cat", "--control", "c"], ["exec:", "use fd:N"]],
    [["call", "--control", "c", "{"], ["{", "quote it for the shell"]],
    [["inspect", "ram", "/nowhere/file"], ["/nowhere/file", "give a file"]],
    [["demo", "--max-bandwidth", "fast"], ["fast", "--max-bandwidth"]],
    [["moev"], ["moev", "move", "--help"].slice(0, 1)]
  ])("of %j names the thing and the remedy, in one line", async (args, words) => {
    const { code, stderr } = await start(args, { cwd: directory() }).ended
    assert.notStrictEqual(code, 0)
    for (const word of words) assert.include(stderr, word)
    assert.strictEqual(stderr.trim().split("\n").length, 1, stderr)
  })

  it("of a guest that throws says in which of its functions, and what it said", async () => {
    const guest = guestOf("throw new Error(\"no such table\")")
    const { code, stderr } = await start(["run", guest]).ended
    assert.strictEqual(code, 1)
    for (const word of [guest, "no such table", "correct the guest's module"]) assert.include(stderr, word)
  })

  it("of a receiver that is not there says that it has to be started, and where the guest is", async () => {
    const control = join(directory(), "source.sock")
    const running = start(["run", "counter", "--memory", "1", "--control", control, "--json"])
    onTestFinished(() => void running.child.kill())
    await running.event("running")
    for (const uri of [`unix:${control}.nobody`, "tcp:127.0.0.1:1"]) {
      const { code, error } = await start(["migrate", uri, "--control", control, "--json"]).ended
      assert.strictEqual(code, 75)
      for (const word of [uri, "start `postcopy receive` first", "still runs at the source"]) {
        assert.include(error.message, word)
      }
    }
    const { code, error } = await start(["call", "--control", control, `{"op":"dance"}`, "--json"]).ended
    assert.strictEqual(code, 1)
    for (const word of ["call handler", "counter knows", "the guest runs on"]) assert.include(error.message, word)
    assert.strictEqual((await start(["quit", "--control", control]).ended).code, 0)
  })
})
