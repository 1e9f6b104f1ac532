/** What a program and a guest module import as `Guest`: the two kinds of definition, and `run`. */
export * from "./guests/Guest.ts"
export { run } from "./Migration.ts"
