// Loads the native addon: the one that scripts/build.js compiled here, else one that came compiled with the package.
// Whatever prevents that comes as one error with code ERR_ADDON_MISSING, so that a program which can do without (or
// wants to explain) needs to know one code.
"use strict"

const fs = require("node:fs")
const path = require("node:path")

const root = path.resolve(__dirname, "..")
const built = path.join(root, "build", "userfaultfd.node")
const prebuilds = path.join(root, "prebuilds")

/** Compiled files for this platform: more than one when it has several C libraries, of which one loads. */
const candidates = () => {
  const prefix = `${process.platform}-${process.arch}`
  const names = fs.existsSync(prebuilds) ? fs.readdirSync(prebuilds).sort() : []
  const prebuilt = names
    .filter((name) => name === prefix || name.startsWith(`${prefix}-`))
    .map((name) => path.join(prebuilds, name, "userfaultfd.node"))
  return [built, ...prebuilt].filter((file) => fs.existsSync(file))
}

const remedy = () =>
  process.platform === "linux"
    ? "build it with `npm rebuild userfaultfd-napi` (needs a C++20 compiler: install g++, or set CXX)"
    : `userfaultfd is a Linux interface and this is ${process.platform}`

const load = () => {
  const files = process.platform === "linux" ? candidates() : []
  let cause
  for (const file of files) {
    try {
      return require(file)
    } catch (error) {
      cause = error
    }
  }
  const place = files.length === 0 ? built : files.join(", ")
  const error = new Error(`the native addon of userfaultfd-napi could not be loaded from ${place}: ${remedy()}`, {
    cause
  })
  error.code = "ERR_ADDON_MISSING"
  throw error
}

module.exports = load()
