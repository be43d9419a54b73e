// Plays a film of the demo's page in a headless browser, to its end.
//
//	node watch.mjs URL [SCREENSHOT.png]
//
// Prints one JSON line and exits 0 if the film ended without an error and the
// view of the relay changed while it played; prints the same line and exits 1
// if not; exits 2 when it cannot start, with the reason on stderr.
//
//	film         title of the film that was played
//	duration     of the film, seconds
//	currentTime  where it stood at the end, seconds
//	ended        the browser's own word for "played to its end"
//	hexChanged   the relay's bytes were shown and changed while the film played
//	relayBytes   what the relay counted to the device, as the page writes it
//	errors       page errors, console errors, failed requests, requests to other hosts
//
// Environment:
//
//	PLAYWRIGHT_CORE  directory of the npm package playwright-core; without it
//	                 the package is looked up as usual, NODE_PATH included
//	CHROMIUM         the browser; default /usr/bin/chromium
//	FILM             title of the film to play; default: the first in the list
//	VIEWPORT         size of the window; default 1280x800
//	WATCH_SECONDS    most that all of it may take; default 120
import { createRequire } from "node:module";

const [url, screenshot] = process.argv.slice(2);
if (!url) fail("usage: node watch.mjs URL [SCREENSHOT.png]");
const { env } = process;
const limit = 1000 * Number(env.WATCH_SECONDS || 120);
const [width, height] = (env.VIEWPORT || "1280x800").split("x").map(Number);

function fail(text) {
  console.error(`watch.mjs: ${text}`);
  process.exit(2);
}

let chromium;
try {
  // require, not import: import does not look at NODE_PATH.
  ({ chromium } = createRequire(import.meta.url)(env.PLAYWRIGHT_CORE || "playwright-core"));
} catch (e) {
  fail(`playwright-core is missing: run "npm install playwright-core" somewhere and set PLAYWRIGHT_CORE to its directory (${e.code})`);
}

let browser;
try {
  browser = await chromium.launch({
    executablePath: env.CHROMIUM || "/usr/bin/chromium",
    timeout: 30_000,
    args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-quic",
      "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
} catch (e) {
  fail(`the browser does not start: ${e.message}`);
}

const result = { film: "", duration: 0, currentTime: 0, ended: false, hexChanged: false, relayBytes: "", errors: [] };
try {
  await watch();
} catch (e) {
  result.errors.push(e.message.split("\n")[0]);
} finally {
  await browser.close();
}
console.log(JSON.stringify(result));
process.exit(result.ended && result.hexChanged && result.errors.length === 0 ? 0 : 1);

async function watch() {
  const page = await browser.newPage({ viewport: { width, height } });
  page.setDefaultTimeout(limit);
  const home = new URL(url).host;
  page.on("pageerror", (e) => result.errors.push(`page: ${e.message}`));
  page.on("console", (m) => m.type() === "error" && result.errors.push(`console: ${m.text()}`));
  page.on("request", (r) => new URL(r.url()).host !== home && result.errors.push(`another host: ${r.url()}`));
  page.on("response", (r) => r.status() >= 400 && result.errors.push(`${r.status()} ${r.url()}`));

  await page.goto(url);
  const button = env.FILM
    ? page.locator("#films button").filter({ hasText: env.FILM }).first()
    : page.locator("#films button").first();
  result.film = await button.evaluate((b) => b.firstChild.textContent);
  await page.waitForFunction(() => document.getElementById("down-hex").textContent !== "");
  const hex = () => page.locator("#down-hex").textContent();
  const before = await hex();
  await button.click();
  await page.waitForFunction(() => {
    const v = document.getElementById("video");
    return v.currentTime > Math.min(6, v.duration / 2) || v.error;
  });
  result.hexChanged = (await hex()) !== before;
  await page.evaluate(() => scrollTo(0, 0));
  if (screenshot) await page.screenshot({ path: screenshot });
  await page.waitForFunction(() => document.getElementById("video").ended || document.getElementById("video").error);
  Object.assign(result, await page.locator("#video").evaluate((v) => ({ duration: v.duration, currentTime: v.currentTime, ended: v.ended })));
  const error = await page.locator("#video").evaluate((v) => v.error && `video: ${v.error.code} ${v.error.message}`);
  if (error) result.errors.push(error);
  result.relayBytes = await page.locator("#down-total").textContent();
}
