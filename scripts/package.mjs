/**
 * What `npm pack` and `npm publish` need around them. Node strips no types below node_modules, so that the package carries
 * compiled JavaScript; a checkout runs from its sources. `before` compiles and points package.json at what was compiled,
 * `after` puts it back. A run that was interrupted in between is mended by the next.
 */
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const at = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url))
const manifest = at("package.json")
const kept = at("package.json.checkout")

const after = () => {
  if (existsSync(kept)) renameSync(kept, manifest)
}

const before = () => {
  after()
  rmSync(at("dist"), { recursive: true, force: true })
  const { status } = spawnSync(process.execPath, [
    at("node_modules/typescript/bin/tsc"),
    "-p",
    at("tsconfig.build.json")
  ], {
    stdio: "inherit"
  })
  if (status !== 0) process.exit(1)
  cpSync(at("src/web/assets"), at("dist/web/assets"), { recursive: true })
  const text = readFileSync(manifest, "utf8")
  const contents = JSON.parse(text)
  for (const paths of Object.values(contents.exports)) {
    if (typeof paths === "string") continue
    const compiled = paths.default.replace("/src/", "/dist/")
    paths.types = compiled.replace(/\.ts$/, ".d.ts")
    paths.default = compiled.replace(/\.ts$/, ".js")
  }
  delete contents.devDependencies
  delete contents.workspaces
  contents.scripts = {}
  writeFileSync(kept, text)
  writeFileSync(manifest, `${JSON.stringify(contents, undefined, 2)}\n`)
}

const steps = { before, after }
const step = steps[process.argv[2]]
if (step === undefined) {
  console.error("scripts/package.mjs before | after; npm pack calls it")
  process.exit(1)
}
step()
