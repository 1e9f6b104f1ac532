/** Headless Chromium, the distribution's own: one browser a test file, a fresh context for each page. */
import { existsSync } from "node:fs"
import { type Browser, chromium, type Page } from "playwright-core"
import { afterAll } from "vitest"

const executable = [
  process.env["CHROMIUM"] ?? "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome"
]
  .find((path) => existsSync(path))

export const hasBrowser = executable !== undefined

export const noBrowser = hasBrowser
  ? ""
  : " (skipped: there is no Chromium; install the package chromium, or set CHROMIUM)"

let browser: Promise<Browser> | undefined

/** With `complaints`, what the page said on its console and what it threw; and `requests`, what it fetched. */
export const open = async (url: string, colorScheme: "light" | "dark" = "light") => {
  browser ??= chromium.launch({
    executablePath: executable!,
    // As root Chromium has no sandbox of its own; what it opens here is ours.
    args: process.getuid?.() === 0 ? ["--no-sandbox"] : []
  })
  const page: Page = await (await browser).newPage({ viewport: { width: 1180, height: 1480 }, colorScheme })
  const complaints: Array<string> = []
  const requests: Array<string> = []
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text())
  })
  page.on("pageerror", (error) => complaints.push(error.message))
  page.on("request", (request) => requests.push(request.url()))
  await page.goto(url)
  return { page, complaints, requests }
}

/** What is to be read there now. */
export const text = (page: Page, selector: string) => page.locator(selector).innerText()

/** Waits until it is to be read there. */
export const says = (page: Page, selector: string, words: string | RegExp) =>
  page.locator(selector, { hasText: words }).first().waitFor({ timeout: 45_000 })

afterAll(async () => (await browser)?.close())
