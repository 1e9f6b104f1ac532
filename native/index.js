// Loads the addon that scripts/build.js built. Whatever prevents that comes as one error with code ERR_ADDON_MISSING,
// so that a program which can do without (or wants to explain) needs to know one code. The exports are listed by name
// for the sake of `import { open } from "userfaultfd-napi"`.
"use strict"

const path = require("node:path")

const file = path.join(__dirname, "build", "userfaultfd.node")

const load = () => {
  try {
    return require(file)
  } catch (cause) {
    const remedy = process.platform !== "linux"
      ? `userfaultfd is a Linux interface and this is ${process.platform}`
      : "build it with `npm rebuild userfaultfd-napi` (needs a C++20 compiler: install g++, or set CXX)"
    const error = new Error(`the native addon of userfaultfd-napi could not be loaded from ${file}: ${remedy}`, {
      cause
    })
    error.code = "ERR_ADDON_MISSING"
    throw error
  }
}

const addon = load()

exports.constants = addon.constants
exports.errnoName = addon.errnoName
exports.pageSize = addon.pageSize
exports.Descriptor = addon.Descriptor
exports.open = addon.open
exports.probe = addon.probe
exports.register = addon.register
exports.unregister = addon.unregister
exports.copy = addon.copy
exports.zeropage = addon.zeropage
exports.continueRange = addon.continueRange
exports.wake = addon.wake
exports.poison = addon.poison
exports.EVENT_WORDS = addon.EVENT_WORDS
exports.readEvents = addon.readEvents
exports.Poller = addon.Poller
exports.FaultPoller = addon.FaultPoller
exports.Region = addon.Region
exports.read = addon.read
exports.write = addon.write
exports.socketpair = addon.socketpair
exports.sendDescriptors = addon.sendDescriptors
exports.receiveDescriptors = addon.receiveDescriptors
exports.connectTcp = addon.connectTcp
exports.listenTcp = addon.listenTcp
exports.connectUnix = addon.connectUnix
exports.listenUnix = addon.listenUnix
exports.probeUnix = addon.probeUnix
exports.accept = addon.accept
exports.socketError = addon.socketError
exports.localAddress = addon.localAddress
exports.unsentBytes = addon.unsentBytes
exports.shutdown = addon.shutdown
exports.setNonBlocking = addon.setNonBlocking
exports.setSocketOptions = addon.setSocketOptions
exports.describe = addon.describe
exports.peerCredentials = addon.peerCredentials
exports.exitNow = addon.exitNow
exports.execute = addon.execute
exports.threadId = addon.threadId
exports.monotonicNanos = addon.monotonicNanos
