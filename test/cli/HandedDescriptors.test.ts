import { assert, describe, it } from "@effect/vitest"
import { Deferred, Exit } from "effect"
import { closeSync, openSync } from "node:fs"
import { join } from "node:path"
import type { Descriptor } from "userfaultfd-napi"
import { addon, pass, socketpair } from "./Descriptors.ts"
import { completed, report, serving } from "./FakeGuest.ts"
import { directory, entry, oldNode, postcopy, start } from "./Postcopy.ts"

describe("migrate fd:N", () => {
  const migrateOver = async (fd: number, path: string, uri = "fd:3") =>
    start(["migrate", uri, "--control", path, "--json"], { descriptors: [fd] })

  it("B42: hands the command's descriptor to the guest's process", async () => {
    const { guest, path } = await serving()
    const [near, far] = socketpair()
    const migrating = await migrateOver(far.fd, path)
    const to = (await completed(guest.asked)).to as Descriptor
    far.close()
    assert.strictEqual(pass(to, near, "hello"), "hello")
    assert.strictEqual(pass(near, to, "there"), "there")
    Deferred.doneUnsafe(guest.completed, Exit.succeed(report))
    assert.strictEqual((await migrating.ended).code, 0)
    // It is the migration's now: the command's end took nothing away.
    assert.strictEqual(pass(near, to, "still"), "still")
    to.close()
    assert.strictEqual(pass(near, near, ""), "")
    near.close()
  })

  it("gives it back when the migration is refused: nobody else keeps it open", async () => {
    const { guest, path } = await serving()
    const [near, far] = socketpair()
    const migrating = await migrateOver(far.fd, path)
    const to = (await completed(guest.asked)).to as Descriptor
    far.close()
    to.close()
    await postcopy("cancel", "--control", path)
    await migrating.ended
    assert.strictEqual(addon.read(near, new Uint8Array(1), 0, 1), 0)
    near.close()
  })

  const wrong: ReadonlyArray<readonly [string, () => { readonly fd: number; readonly close: () => void }]> = [
    ["a file", () => {
      const fd = openSync(join(directory(), "file"), "w+")
      return { fd, close: () => closeSync(fd) }
    }],
    ["a datagram socket", () => {
      const [one, other] = addon.socketpair(addon.constants.SOCK_DGRAM)
      return { fd: one.fd, close: () => [one, other].forEach((socket) => socket.close()) }
    }],
    ["a listening socket", () => {
      const listener = addon.listenUnix(join(directory(), "listener"), 1)
      return { fd: listener.fd, close: () => listener.close() }
    }]
  ]
  it.each(wrong)("B42: refuses %s: EINVAL, exit 1", async (_, make) => {
    const { guest, path } = await serving()
    const { close, fd } = make()
    const { code, error } = await (await migrateOver(fd, path)).ended
    close()
    assert.strictEqual(code, 1)
    assert.include(error.message, "EINVAL")
    assert.strictEqual(guest.state, "running")
  })

  it("B42: refuses a number that is not open: EINVAL, exit 1", async () => {
    const { path } = await serving()
    const { code, error } = await postcopy("migrate", "fd:77", "--control", path, "--json")
    assert.strictEqual(code, 1)
    assert.include(error.message, "EINVAL")
  })

  it.skipIf(oldNode === undefined)("works under an old Node, which gives way to the new one", async () => {
    const { guest, path } = await serving()
    const [near, far] = socketpair()
    const migrating = start(["migrate", "fd:3", "--control", path], {
      descriptors: [far.fd],
      command: [oldNode!, entry]
    })
    const to = (await completed(guest.asked)).to as Descriptor
    assert.strictEqual(pass(to, near, "hello"), "hello")
    Deferred.doneUnsafe(guest.completed, Exit.succeed(report))
    assert.strictEqual((await migrating.ended).code, 0)
    for (const socket of [to, near, far]) socket.close()
  })
})
