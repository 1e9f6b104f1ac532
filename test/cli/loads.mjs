// Preloaded by a test (--import): says on descriptor 2 which modules are loaded, and which relative imports Node looked up.
import { writeSync } from "node:fs"
import { registerHooks } from "node:module"

const say = (line) => writeSync(2, `${line}\n`)

registerHooks({
  resolve: (specifier, context, next) => {
    if (specifier.startsWith(".")) say(`looked up ${specifier} for ${context.parentURL}`)
    return next(specifier, context)
  },
  load: (url, context, next) => {
    say(`loaded ${url}`)
    return next(url, context)
  }
})
