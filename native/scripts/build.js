// Builds the addon with one call of the system's C++ compiler: no node-gyp, no Python, no network. Runs as the install
// script of this package; nothing is built where a binary that loads came with it, unless npm was told
// `--build-from-source`. Without Linux or a compiler it says so and succeeds, because whoever never opens a userfaultfd
// (the source of a migration) can do without; loading the addon then fails with a clear error.
//
// `--prebuild` makes such a binary: it brings its own C++ library and needs no newer glibc than the building host's.
"use strict"

const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const path = require("node:path")

const root = path.resolve(__dirname, "..")
const sourceDirectory = path.join(root, "src")
const prebuilds = path.join(root, "prebuilds")
const prebuild = process.argv.includes("--prebuild")

/** Binaries of one C library do not load with another. */
const library = () => fs.readdirSync("/lib").some((name) => name.startsWith("ld-musl-")) ? "musl" : "glibc"
const platform = `${process.platform}-${process.arch}`
const buildDirectory = prebuild ? path.join(prebuilds, `${platform}-${library()}`) : path.join(root, "build")
const output = path.join(buildDirectory, "userfaultfd.node")

/** Node-API 9: the same binary loads in Node 20 and everything later. */
const napiVersion = 9

const warn = (message) => process.stderr.write(`userfaultfd-napi: ${message}\n`)

const skip = (reason) => {
  warn(`not built: ${reason}`)
  warn("the package installs, but loading it will fail; run `npm rebuild userfaultfd-napi` once that is mended")
  process.exit(0)
}

const words = (text) => (text ?? "").split(/\s+/).filter((word) => word !== "")

const modifiedAt = (file) => fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0

if (process.platform !== "linux") skip(`userfaultfd is a Linux interface, this is ${process.platform}`)

const loads = (file) => {
  try {
    require(file)
    return true
  } catch {
    return false
  }
}
const fromSource = prebuild || process.env.npm_config_build_from_source === "true" || !fs.existsSync(prebuilds)
const prebuilt = fromSource ? [] : fs.readdirSync(prebuilds).filter((name) => name.startsWith(platform))
if (prebuilt.some((name) => loads(path.join(prebuilds, name, "userfaultfd.node")))) process.exit(0)

let headers
try {
  headers = require("node-api-headers").include_dir
} catch {
  skip("the package node-api-headers is missing")
}

const inputs = fs.readdirSync(sourceDirectory).sort().map((name) => path.join(sourceDirectory, name))
const sources = inputs.filter((file) => file.endsWith(".cc"))

const [compiler, ...compilerArguments] = words(process.env.CXX ?? "c++")
const flags = [
  "-shared -fPIC -O2 -std=c++20 -pthread -Wall -Wextra -D_GNU_SOURCE",
  "-fno-exceptions -fno-rtti -fvisibility=hidden -fstack-protector-strong",
  `-DNAPI_VERSION=${napiVersion} -DNODE_GYP_MODULE_NAME=userfaultfd`,
  // nodelete: the table of regions is process-wide, and a worker's end must not unload it.
  "-Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now",
  prebuild ? "-static-libstdc++ -static-libgcc -s" : ""
].flatMap(words)
// As system headers, the N-API ones do not warn.
const paths = ["-isystem", headers, "-I", sourceDirectory]
const command = [compiler, ...compilerArguments].concat(
  flags,
  paths,
  words(process.env.CXXFLAGS),
  ["-x", "c++", "-", "-o"]
)

// Up to date: newer than every source, and built by the same command (a sanitizer's build is another one).
const stamp = path.join(buildDirectory, "command.txt")
const described = command.concat(words(process.env.LDFLAGS)).join(" ")
const newest = Math.max(...[...inputs, __filename].map(modifiedAt))
const built = fs.existsSync(stamp) ? fs.readFileSync(stamp, "utf8") : ""
if (!prebuild && modifiedAt(output) > newest && built === described) process.exit(0)

// One translation unit of all files: the headers, most of the work, are compiled once (3 s instead of 15).
const unit = sources.map((file) => `#include ${JSON.stringify(file)}\n`).join("")

// Written beside and renamed: a process that has the old file loaded keeps it, one that loads now gets a whole file.
fs.mkdirSync(buildDirectory, { recursive: true })
const temporary = path.join(buildDirectory, `userfaultfd.${process.pid}.tmp`)
const result = spawnSync(compiler, [...command.slice(1), temporary, ...words(process.env.LDFLAGS)], {
  input: unit,
  stdio: ["pipe", "inherit", "inherit"]
})

if (result.error?.code === "ENOENT") skip(`no C++ compiler: ${compiler} was not found (install g++ or set CXX)`)
// A compiler that ends before it has read its input makes an EPIPE, and has a status which says more.
if (result.error !== undefined && result.error.code !== "EPIPE") throw result.error
if (result.status !== 0) {
  fs.rmSync(temporary, { force: true })
  warn(`${compiler} failed (${result.signal ?? `status ${result.status}`})`)
  process.exit(1)
}
fs.renameSync(temporary, output)
if (!prebuild) fs.writeFileSync(stamp, described)
