// Preloaded by a test (--require): a host on which the addon was never built.
const Module = require("node:module")
const load = Module._load
Module._load = function(request, ...rest) {
  if (request !== "userfaultfd-napi") return load.call(this, request, ...rest)
  throw Object.assign(new Error("the addon is not built on this host"), { code: "ERR_ADDON_MISSING" })
}
