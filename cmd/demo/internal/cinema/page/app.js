// The demo's page: plays films, and shows what the relay saw of them.
const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const narrow = matchMedia("(max-width: 520px)");

const units = ["B", "kB", "MB", "GB", "TB"];
function size(n) {
  let i = 0;
  for (; n >= 999.5 && i < units.length - 1; i++) n /= 1000;
  return `${n >= 99.5 || i === 0 ? n.toFixed(0) : n.toPrecision(n >= 9.995 ? 3 : 2)} ${units[i]}`;
}

// --- bytes as hexadecimal and text -----------------------------------------

const hexOf = (b) => b.toString(16).padStart(2, "0");
const textOf = (b) => (b > 0x20 && b < 0x7f ? String.fromCharCode(b) : "·");

// dump writes bytes into the two columns named name-hex and name-text: rows of
// 24, 16 or 8 bytes, as many as fit, and of those at most maxRows, the last.
function dump(name, bytes, maxRows) {
  const hex = $(`${name}-hex`), text = $(`${name}-text`), box = hex.parentElement;
  const chars = (box.clientWidth - 20) / charWidth(); // a row of n takes 4n + 1
  const row = [24, 16].find((n) => 4 * n + 1 <= chars) ?? 8;
  bytes = bytes.subarray(Math.max(0, bytes.length - row * maxRows));
  const rows = [[], []];
  for (let i = 0; i < bytes.length; i += row) {
    const part = Array.from(bytes.subarray(i, i + row));
    rows[0].push(part.map(hexOf).join(" ").padEnd(row * 3 - 1));
    rows[1].push(part.map(textOf).join(""));
  }
  hex.textContent = rows[0].join("\n");
  text.textContent = rows[1].join("\n");
}

let measured = 0;
function charWidth() {
  if (!measured) {
    const probe = document.createElement("pre");
    probe.style.cssText = "position:absolute;visibility:hidden";
    probe.textContent = "0".repeat(100);
    $("down-hex").parentElement.append(probe);
    measured = probe.getBoundingClientRect().width / 100;
    probe.remove();
  }
  return measured;
}

function unhex(s) {
  const bytes = new Uint8Array(s.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(s.substr(i * 2, 2), 16);
  return bytes;
}

// --- films -----------------------------------------------------------------

const video = $("video");
let current = null;   // the film that is chosen
let firstBytes = new Uint8Array();
let wanted = false;   // whether the film shall play: a film that breaks off reads as paused
let resume = null;    // how a film that broke off goes on: {at, playing, due}

const hls = (film) => film.type === "application/vnd.apple.mpegurl";
const playable = (film) => video.canPlayType(film.type) !== "";

function choose(film, play, at = 0) {
  if (film === current && !video.error) {
    video.currentTime = at;
    if (play) start();
    return;
  }
  current = film;
  resume = null;
  wanted = false;
  $("now").textContent = film.title;
  $("message").textContent = "";
  for (const button of $("films").querySelectorAll("button"))
    button.setAttribute("aria-current", String(button.film === film));
  video.src = film.url + (at > 0 ? `#t=${at}` : "");
  if (play) start();
  showFirstBytes(film);
}

function start() {
  wanted = true;
  video.play().catch(() => {}); // a refusal shows in the controls, a failure in the error event
}

async function showFirstBytes(film) {
  try {
    const answer = await fetch(film.url, { headers: { Range: "bytes=0-47" } });
    if (!answer.ok) return;
    const bytes = new Uint8Array(await answer.arrayBuffer());
    if (film === current) dump("film", firstBytes = bytes.subarray(0, 48), 6);
  } catch {
    // The relay is gone: the state of the live view says so.
  }
}

video.addEventListener("play", () => { wanted = true; });
video.addEventListener("pause", () => { wanted = video.error !== null && wanted; });

// A film that broke off goes on by itself: after two seconds if it was the
// network, and in any case when the live view comes back.
video.addEventListener("error", () => {
  const network = video.error.code === MediaError.MEDIA_ERR_NETWORK;
  resume = { at: video.currentTime, playing: wanted, due: network ? performance.now() + 2000 : Infinity };
  $("message").textContent =
    network || document.body.classList.contains("lost") ? "The film stopped arriving. It goes on when it can."
    : hls(current) && !playable(current) ? "This browser does not play HLS by itself. Another film may play."
    : "This browser cannot play this film, or it did not arrive whole.";
});

function goOn() {
  if (resume && current) choose(current, resume.playing, resume.at);
}

function listFilms(list) {
  const items = list.films.map((film) => {
    const button = document.createElement("button");
    const note = document.createElement("span");
    button.type = "button";
    button.film = film;
    button.textContent = film.title;
    note.textContent = [film.note, hls(film) ? "" : size(film.bytes), playable(film) ? "" : "perhaps not in this browser"]
      .filter(Boolean).join(" · ");
    button.append(note);
    button.addEventListener("click", () => choose(film, true));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  $("films").replaceChildren(...items);
  $("filter").hidden = items.length <= 12;
  const notes = [];
  if (!items.length) notes.push("No film found in this folder. Films end in mp4, m4v, mov, webm, mkv, ogv, m3u8; music in mp3, m4a, flac, ogg, opus, wav.");
  if (list.more) notes.push("The folder holds more than is listed here.");
  if (list.leftOut) notes.push(`${list.leftOut} files or folders could not be read and are left out.`);
  $("films-note").textContent = notes.join(" ");
  if (items.length) choose(list.films.find(playable) ?? list.films[0], false);
}

$("filter").querySelector("input").addEventListener("input", (e) => {
  const want = e.target.value.trim().toLowerCase();
  for (const item of $("films").children)
    item.hidden = !item.textContent.toLowerCase().includes(want);
});

async function loadFilms() {
  try {
    const answer = await fetch("/api/films");
    if (!answer.ok) throw new Error(answer.statusText);
    listFilms(await answer.json());
  } catch {
    $("films-note").textContent = "The list of films did not arrive. Trying again.";
    setTimeout(loadFilms, 2000);
  }
}

// --- what the relay sees ---------------------------------------------------

const minute = 240;   // events: four a second
let history = [];     // {ms, down, up, own}, oldest first
let held = false;
let drawn = 0;        // when the bytes were last drawn

$("hold").addEventListener("click", () => {
  held = !held;
  $("hold").setAttribute("aria-pressed", String(held));
});

function seen(e) {
  const last = history.at(-1);
  if (last && e.ms <= last.ms) history = []; // another relay: it counts from zero
  history.push({ ms: e.ms, down: e.toDevice.bytes, up: e.toAgent.bytes, own: e.own });
  if (history.length > minute + 1) history.shift();
  if (held || (calm.matches && performance.now() - drawn < 2000)) return;
  drawn = performance.now();

  const now = history.at(-1), before = history.at(-5) ?? history[0];
  const rate = (what) => (now[what] - before[what]) * 1000 / Math.max(1, now.ms - before.ms);
  $("down-rate").textContent = `${size(rate("down"))}/s`;
  $("up-rate").textContent = `${size(rate("up"))}/s`;
  $("down-total").textContent = `${size(now.down)} in all`;
  $("up-total").textContent = `${size(now.up)} in all`;
  $("streams").textContent = e.streams;
  $("own").textContent = `about ${size(rate("own"))}/s`;
  dump("down", unhex(e.toDevice.last), narrow.matches ? 12 : 16);
  dump("up", unhex(e.toAgent.last), 4);
  draw();
}

// draw draws the rates to the device on a logarithmic scale, from 1 kB/s at the
// floor, so that a burst does not flatten the film's steady flow.
function draw() {
  const rates = history.slice(1).map((h, i) => (h.down - history[i].down) * 1000 / (h.ms - history[i].ms));
  const peak = Math.max(...rates, 0);
  const decades = Math.log10(Math.max(peak, 100_000) / 1000);
  let d = `M${minute - rates.length} 40`;
  rates.forEach((r, i) => {
    const height = Math.log10(Math.max(r, 1000) / 1000) / decades;
    d += `L${minute - rates.length + i + 1} ${(39 - 36 * height).toFixed(1)}`;
  });
  $("line").setAttribute("d", `${d}V40Z`);
  $("peak").textContent = rates.length ? `peak ${size(peak)}/s` : "";
}

// --- the way to the relay's view -------------------------------------------

let source = null;
let heard = performance.now(); // when the last event came
let tried = 0;                 // when the last connection was begun

function connect() {
  source?.close();
  tried = performance.now();
  source = new EventSource("/wire");
  source.onmessage = (m) => {
    heard = performance.now();
    setState("");
    seen(JSON.parse(m.data));
  };
}

function setState(text) {
  const lost = text !== "";
  const back = !lost && document.body.classList.contains("lost");
  document.body.classList.toggle("lost", lost);
  $("state").hidden = !lost;
  if ($("state").textContent !== text) $("state").textContent = text;
  if (back || (!lost && performance.now() > resume?.due)) goOn();
}

setInterval(() => {
  const silent = performance.now() - heard;
  if (silent > 15_000) setState("The relay is gone, or the way to it. This page keeps trying.");
  else if (silent > 2500) setState("Connection lost, waiting.");
  // An EventSource gives up after an answer such as 502, and a dead connection
  // may not end by itself: both get a new one.
  if (silent > 2500 && performance.now() - tried > 3000) connect();
}, 500);

addEventListener("resize", () => dump("film", firstBytes, 6));
loadFilms();
connect();
