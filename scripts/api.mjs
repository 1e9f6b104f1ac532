/**
 * Writes docs/api.md from the sources: every export of the package's entries, its declaration as the compiler sees it, and
 * its own words. `--check` only says whether the file is current; the test of the documentation does that.
 */
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const target = join(root, "docs/api.md")

const entries = [
  ["postcopy", "index", "What programs and guest modules import."],
  ["postcopy (Guest)", "Guest", "The namespace `Guest`: definitions of guests, and `Guest.run`."],
  ["postcopy/services", "services", "What a migration works with; each can be replaced by a layer."],
  ["postcopy/testing", "testing", "A migration without kernel, threads or processes, for tests under `TestClock`."]
]

const declarations = mkdtempSync(join(tmpdir(), "postcopy-api-"))

/** Statements of a declaration file that export something, each with the comment before it. */
const statements = (file) => {
  const text = readFileSync(file, "utf8")
  const found = new Map()
  const pattern =
    /(\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)?(export declare (?:const|class|function)|export (?:interface|type)|declare const|interface|type) (\w+)[\s\S]*?(?=\n(?:\/\*\*|export |declare |interface |type |import |\/\/#)|$)/g
  for (const [whole, comment = "", , name] of text.matchAll(pattern)) {
    if (!found.has(name)) found.set(name, { comment, code: whole.slice(comment.length).trim() })
    else found.get(name).code += `\n${whole.slice(comment.length).trim()}`
  }
  const again = []
  for (const [, names, from] of text.matchAll(/export (?:type )?\{([^}]*)\} from "([^"]+)"/g)) {
    for (const one of names.split(",")) {
      const [name, alias = name] = one.trim().replace(/^type /, "").split(" as ")
      if (name !== "") again.push([name, alias, resolve(dirname(file), from.replace(/\.(js|ts)$/, ".d.ts"))])
    }
  }
  const all = [...text.matchAll(/export \* from "([^"]+)"/g)].map(([, from]) =>
    resolve(dirname(file), from.replace(/\.(js|ts)$/, ".d.ts"))
  )
  return { found, again, all }
}

const exported = (file) => {
  const { again, all, found } = statements(file)
  const list = []
  for (const [name, { code, comment }] of found) {
    if (code.startsWith("export")) list.push({ name, code, comment })
  }
  for (const [name, alias, from] of again) {
    const found = exported(from).find((one) => one.name === name)
    if (found !== undefined) list.push({ ...found, name: alias })
  }
  for (const from of all) list.push(...exported(from))
  return list
}

const words = (comment) =>
  comment.replace(/^\/\*\*|\*\/\s*$/g, "").split("\n").map((line) => line.replace(/^\s*\* ?/, "")).join("\n").trim()
    .replaceAll(/\{@link (\w+)\}/g, "`$1`").replaceAll(/^@(\w+)/gm, "\n*$1*:").replaceAll(/\n{3,}/g, "\n\n")

const render = () => {
  let text = "# API\n\nGenerated from the sources by `npm run docs:api`; the words are those beside the code.\n"
  for (const [title, entry, about] of entries) {
    text += `\n## ${title}\n\n${about}\n`
    const seen = new Set()
    for (const { code, comment, name } of exported(join(declarations, `${entry}.d.ts`))) {
      if (seen.has(name)) continue
      seen.add(name)
      const said = words(comment)
      text += `\n### ${name}\n\n${said === "" ? "" : `${said}\n\n`}\`\`\`text\n${
        code.replace(/^export (declare )?/gm, "")
      }\n\`\`\`\n`
    }
  }
  return text
}

try {
  execFileSync(process.execPath, [
    join(root, "node_modules/typescript/bin/tsc"),
    "-p",
    join(root, "tsconfig.build.json"),
    "--outDir",
    declarations,
    "--emitDeclarationOnly",
    "--declarationMap",
    "false",
    "--sourceMap",
    "false"
  ], { stdio: "inherit" })
  const text = render()
  if (!process.argv.includes("--check")) writeFileSync(target, text)
  else if (readFileSync(target, "utf8") !== text) {
    console.error("docs/api.md is not what the sources say: npm run docs:api")
    process.exitCode = 1
  }
} finally {
  rmSync(declarations, { recursive: true, force: true })
}
