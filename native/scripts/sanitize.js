// Runs the addon's tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the package, so
// that the build in use is left alone. Node is not built with the sanitizers: their runtime is loaded before it. What
// they find ends the process that did it, and so fails its test.
//
// First a bug is planted and has to be found: a run that sees nothing because nothing is looking would pass as well.
"use strict"

const { spawnSync } = require("node:child_process")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")

const root = path.resolve(__dirname, "..")
const repository = path.dirname(root)
const modules = path.join(repository, "node_modules")
const compiler = process.env.CXX ?? "c++"

const flags = "-fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
const quarantine = (megabytes) => `quarantine_size_mb=${megabytes}`
const asan = [
  // Node keeps what it allocated until its end, and V8 handles SIGSEGV in WebAssembly itself.
  "detect_leaks=0",
  "handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:allow_user_segv_handler=1",
  "detect_stack_use_after_return=1:strict_string_checks=1:exitcode=99"
].join(":")

const run = (command, args, options = {}) => {
  const result = spawnSync(command, args, { stdio: "inherit", ...options })
  if (result.error !== undefined) throw result.error
  return result
}

const environment = (extra) => ({
  ...process.env,
  LD_PRELOAD: run(compiler, ["-print-file-name=libasan.so"], { stdio: "pipe" }).stdout.toString().trim(),
  ASAN_OPTIONS: `${asan}:${extra}`,
  UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1"
})

/** The package and what its tests import, with the package itself in the place of the installed one. */
const copyTo = (directory) => {
  const native = path.join(directory, "native")
  const names = fs.readdirSync(root).filter((name) => !["build", "node_modules", "prebuilds"].includes(name))
  for (const name of names) fs.cpSync(path.join(root, name), path.join(native, name), { recursive: true })
  const target = path.join(directory, "node_modules")
  fs.mkdirSync(target)
  for (const name of fs.readdirSync(modules)) {
    const from = name === "userfaultfd-napi" ? native : path.join(modules, name)
    if (name !== ".vite") fs.symlinkSync(from, path.join(target, name))
  }
  const configuration = `export default { test: {
    include: ["native/test/**/*.test.ts"],
    // They compile and install other builds.
    exclude: ["**/Build.test.ts", "**/Install.test.ts"],
    maxWorkers: 2, testTimeout: 240_000, hookTimeout: 60_000
  } }\n`
  fs.writeFileSync(path.join(directory, "vitest.config.mjs"), configuration)
  fs.writeFileSync(path.join(directory, "package.json"), "{ \"private\": true, \"type\": \"module\" }\n")
  return native
}

/** Bugs of both kinds in an addon of three lines: each must end its process with a report. */
const plant = (directory) => {
  const source = `#include <node_api.h>
    #include <climits>
    #include <cstdlib>
    static napi_value overflow(napi_env, napi_callback_info) {
      static volatile int size = 4;
      static_cast<volatile char*>(malloc(size))[size] = 1;
      return nullptr;
    }
    static napi_value undefined(napi_env, napi_callback_info) {
      volatile int most = INT_MAX;
      most = most + 1;
      return nullptr;
    }
    NAPI_MODULE_INIT() {
      napi_value f;
      napi_create_function(env, "", 0, overflow, nullptr, &f);
      napi_set_named_property(env, exports, "overflow", f);
      napi_create_function(env, "", 0, undefined, nullptr, &f);
      napi_set_named_property(env, exports, "undefined", f);
      return exports;
    }`
  const file = path.join(directory, "planted.node")
  const headers = require("node-api-headers").include_dir
  const args = `-shared -fPIC -std=c++20 -DNODE_GYP_MODULE_NAME=planted ${flags}`.split(" ")
  run(compiler, [...args, "-isystem", headers, "-x", "c++", "-", "-o", file], {
    input: source,
    stdio: ["pipe", "inherit", "inherit"]
  })
  for (const [name, report] of [["overflow", /heap-buffer-overflow/], ["undefined", /signed integer overflow/]]) {
    const script = `require(${JSON.stringify(file)}).${name}()`
    const { stderr, status } = run(process.execPath, ["-e", script], {
      env: environment(quarantine(16)),
      stdio: "pipe"
    })
    if (status === 0 || !report.test(String(stderr))) {
      throw new Error(`the planted bug "${name}" was not found (status ${status}): ${stderr}`)
    }
  }
  process.stderr.write("sanitize: both planted bugs were found\n")
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "userfaultfd-napi-asan-"))
let status = 1
try {
  plant(directory)
  const native = copyTo(directory)
  const build = { env: { ...process.env, CXXFLAGS: flags } }
  if (run(process.execPath, [path.join(native, "scripts", "build.js")], build).status !== 0) process.exit(1)
  const vitest = path.join(modules, "vitest", "vitest.mjs")
  const tests = (args, extra) =>
    run(process.execPath, [vitest, "run", ...args], { cwd: directory, env: environment(extra) }).status
  const wanted = process.argv.slice(2)
  // What is freed is kept back for a while to catch later uses; the test that measures memory has to do with little.
  if (wanted.length > 0) status = tests(wanted, quarantine(1))
  else status = tests(["--exclude", "**/Cycles.test.ts"], quarantine(64)) || tests(["Cycles"], quarantine(1))
} finally {
  fs.rmSync(directory, { recursive: true, force: true })
}
process.exitCode = status ?? 1
