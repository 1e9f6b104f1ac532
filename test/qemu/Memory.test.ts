/**
 * What a restore takes of the host's memory: as much for a large image as for a small one, since the image is mapped and
 * what was sent is let go of. The destination is a double that takes every page and never says that it has them.
 */
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import * as net from "node:net"
import { join } from "node:path"
import { assert, describe, it, onTestFinished } from "vitest"
import * as Binding from "../../src/native/Binding.ts"
import { FORMAT, VERSION } from "../../src/qemu/Manifest.ts"
import { directory, entry } from "../cli/Postcopy.ts"

const PAGE = 4096
const MEBIBYTE = 2 ** 20

const digest = (bytes: Uint8Array) => ({
  length: bytes.length,
  sha256: createHash("sha256").update(bytes).digest("hex")
})

/** An image each page of which is to be sent whole; its file is a hole, which takes no room. */
const image = (path: string, mebibytes: number) => {
  const length = mebibytes * MEBIBYTE
  const stored = length / PAGE
  const devices = new Uint8Array(64).fill(1)
  const pages = new Uint8Array(stored / 8).fill(0xff)
  mkdirSync(path)
  writeFileSync(join(path, "devices"), devices)
  writeFileSync(join(path, "pages"), pages)
  writeFileSync(join(path, "memory"), "")
  truncateSync(join(path, "memory"), length)
  const manifest = {
    format: FORMAT,
    version: VERSION,
    machine: "none",
    configuration: "",
    qemu: null,
    vcpus: null,
    createdAt: "",
    captured: "paused",
    guestWas: null,
    capabilities: [],
    blocks: [{ idstr: "ram", length, pageSize: PAGE, offset: 0, stored }],
    devices: digest(devices),
    pages: digest(pages),
    memory: { length, sha256: "" },
    sections: null
  }
  writeFileSync(join(path, "manifest.json"), JSON.stringify(manifest))
}

/** Restores all of an image into a double; what the source holds then, in MiB. */
const held = async (mebibytes: number) => {
  const home = directory()
  image(join(home, "image"), mebibytes)
  let taken = 0
  let told = () => {}
  const all = new Promise<void>((resolve) => {
    told = resolve
  })
  const server = net.createServer((socket) => {
    socket.on("error", () => {})
    socket.on("data", (bytes) => {
      taken += bytes.length
      if (taken >= mebibytes * MEBIBYTE) told()
    })
  })
  onTestFinished(() => {
    server.close()
  })
  const path = join(home, "in")
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const source = spawn(entry, ["qemu", "restore", join(home, "image"), `unix:${path}`], {
    stdio: ["ignore", "ignore", "inherit"]
  })
  onTestFinished(() => {
    source.kill("SIGKILL")
  })
  const gone = new Promise<never>((_, reject) =>
    source.once("exit", (code) => reject(new Error(`qemu restore ended with ${code}`)))
  )
  gone.catch(() => {})
  await Promise.race([all, gone])
  const maps = readFileSync(`/proc/${source.pid}/smaps`, "utf8")
  const sum = (name: string, of: (mapping: string) => boolean) =>
    maps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m).filter(of).reduce(
      (total, mapping) => total + Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(mapping)![1]) / 1024,
      0
    )
  return {
    own: sum("Anonymous", () => true),
    ofImage: sum("Rss", (mapping) => mapping.slice(0, mapping.indexOf("\n")).endsWith(join("image", "memory")))
  }
}

describe.skipIf(Binding.load() === undefined)("what a restore holds", { timeout: 60_000 }, () => {
  it("does not grow with the image, neither of its own nor of the image", async () => {
    const small = await held(64)
    const large = await held(1024)
    assert.isBelow(large.own - small.own, 16)
    assert.isAtMost(small.ofImage, 4)
    assert.isAtMost(large.ofImage, 4)
  })
})
