import { assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import { directory, type Ended, postcopy } from "./Postcopy.ts"

const commands = [
  "demo",
  "run",
  "receive",
  "migrate",
  "status",
  "set",
  "pause",
  "resume",
  "cancel",
  "call",
  "quit",
  "inspect",
  "doctor"
]

const refused = ({ code, error, stderr, stdout }: Ended, part: string) => {
  assert.strictEqual(code, 1)
  assert.strictEqual(stdout, "")
  assert.include(error === undefined ? stderr : error.message, part)
}

describe("help", () => {
  it("lists every command", async () => {
    const { code, stderr, stdout } = await postcopy("--help")
    assert.strictEqual(code, 0)
    assert.strictEqual(stderr, "")
    for (const command of commands) assert.match(stdout, new RegExp(`^ +${command} `, "m"))
  })

  it.each(commands)("%s explains itself", async (command) => {
    const { code, stdout } = await postcopy(command, "--help")
    assert.strictEqual(code, 0)
    assert.include(stdout, `postcopy ${command}`)
    assert.include(stdout, "--json")
  })

  it("is no JSON, so it goes to stderr with --json", async () => {
    const { code, stderr, stdout } = await postcopy("run", "--help", "--json")
    assert.deepStrictEqual([code, stdout], [0, ""])
    assert.include(stderr, "USAGE")
  })

  it("comes with the version, as JSON too", async () => {
    const { code, objects } = await postcopy("--version", "--json")
    assert.strictEqual(code, 0)
    assert.strictEqual(objects[0].name, "postcopy")
  })
})

describe("a usage error", () => {
  it("of no command at all shows what there is", async () => {
    const { code, stderr, stdout } = await postcopy()
    assert.deepStrictEqual([code, stdout], [1, ""])
    assert.include(stderr, "SUBCOMMANDS")
    assert.include(stderr, "a command is needed")
  })

  const cases: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
    [["recieve"], "did you mean receive?"],
    [["run"], "guest"],
    [["status"], "--control"],
    [["status", "--control"], "--control"],
    [["status", "--control", "x", "--frob"], "--frob"],
    [["set", "--control", "x"], "--max-bandwidth"],
    [["set", "--control", "x", "--max-bandwidth", "fast"], "fast"],
    [["migrate", "--control", "x"], "uri"],
    [["migrate", "udp:x", "--control", "x"], "udp:x"],
    [["migrate", "tcp:localhost", "--control", "x"], "tcp:HOST:PORT"],
    [["migrate", "unix:x", "--control", "x", "--max-bandwidth=-5"], "-5"],
    [["receive", "counter"], "uri"],
    [["receive", "counter", "unix:x", "--postcopy-flags", "0x3"], "0x3"],
    [["receive", "counter", "unix:x", "--memory", "0"], "MiB"],
    [["receive", "counter", "tcp:localhost:x"], "port"],
    [["run", "./no-such-guest.ts"], "no-such-guest.ts"],
    [["run", "counter", "--memory", "lots"], "lots"],
    [["run", "counter", "--control", `/tmp/${"x".repeat(120)}`], "bytes"],
    [["run", "counter", "--control", "/no/such/directory/socket"], "/no/such/directory"],
    [["demo", "--guest", "unknown"], "sqlite"],
    [["demo", "--max-bandwidth", "0"], "above zero"],
    [["inspect"], "channel"],
    [["inspect", "frames"], "request"],
    [["inspect", "ram", "/no/such/file"], "ENOENT"],
    [["inspect", "savevm", "--devices", "cpu"], "cpu"],
    [["call", "--control", "x", "{"], "not JSON"],
    [["call", "--control", "x"], "json"]
  ]
  it.each(cases)("%j is one sentence and exit 1", async (args, part) => {
    const ended = await postcopy(...args, "--json")
    refused(ended, part)
    assert.strictEqual(ended.stderr.trimEnd().split("\n").length, 1)
    assert.isString(ended.error.tag)
  })

  it("reads the same without --json", async () => {
    const ended = await postcopy("run", "./no-such-guest.ts")
    refused(ended, "no-such-guest.ts")
    assert.match(ended.stderr, /^postcopy: [^\n]+\n$/)
  })

  it("of exec: is the host's: ENOSYS, exit 69", async () => {
    const { code, error } = await postcopy("migrate", "exec:nc host 1", "--control", "x", "--json")
    assert.strictEqual(code, 69)
    assert.strictEqual(error.tag, "Unsupported")
    assert.include(error.message, "ENOSYS")
    assert.strictEqual((await postcopy("receive", "counter", "exec:nc -l 1")).code, 69)
  })
})

describe("no guest's process", () => {
  const commands: ReadonlyArray<ReadonlyArray<string>> = [
    ["status"],
    ["status", "--watch"],
    ["pause"],
    ["resume"],
    ["cancel"],
    ["quit"],
    ["set", "--max-bandwidth", "1M"],
    ["call", "{}"],
    ["migrate", "unix:link"]
  ]
  it.each(commands)("%j says what is missing, where, and what to do", async (...args) => {
    const path = join(directory(), "control")
    const { code, error, stdout } = await postcopy(...args, "--control", path, "--json")
    assert.deepStrictEqual([code, stdout], [1, ""])
    assert.strictEqual(error.tag, "NoControl")
    assert.include(error.message, `there is no control socket ${path}`)
    assert.include(error.message, "--control")
  })
})
