/* What the pages do with a script: mail appears as it arrives, the clock runs, texts are copied. Without it everything else works.
 * Nothing here makes HTML of text: rows are copies of a <template>, filled with textContent.
 *
 * One tab of a browser has the stream of an inbox (a lock decides which) and passes its events on to the others. Each tab knows the
 * cursor up to which it has every row. An event says after which cursor it comes; a tab that has another cursor fetches what is
 * between them. So nothing is missed, whichever tab was closed, suspended or opened in between.
 */

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const lang = document.documentElement.lang;
const page = $("#inbox");
const status = $("#status");
document.documentElement.classList.add("scripted");

/* What the address says about the request before this page is on the page, and is not true of it when it is loaded again. */
const here = new URL(location);
if (here.searchParams.has("notice")) {
  here.searchParams.delete("notice");
  history.replaceState(null, "", here);
}

/* Words, times, what is copied */

let silence;

function say(text, seen = true) {
  clearTimeout(silence);
  status.classList.toggle("unseen", !seen);
  status.textContent = text;
  silence = setTimeout(() => (status.textContent = ""), 7000);
}

// The visitor's own region decides how times are written, where it speaks the language of the page.
const region = lang.includes("-") ? lang : (navigator.languages.find((each) => each.split("-")[0] === lang) ?? lang);
const TODAY = new Intl.DateTimeFormat(region, { timeStyle: "short" });
const THIS_YEAR = new Intl.DateTimeFormat(region, { day: "numeric", month: "short" });
const EARLIER = new Intl.DateTimeFormat(region, { dateStyle: "medium" });
const number = new Intl.NumberFormat(region);
const WHOLE = new Intl.DateTimeFormat(region, { dateStyle: "medium", timeStyle: "short" });

function showTime(element) {
  const time = new Date(element.dateTime);
  if (isNaN(time)) return;
  const now = new Date();
  const short = time.toDateString() === now.toDateString() ? TODAY : time.getFullYear() === now.getFullYear() ? THIS_YEAR : EARLIER;
  element.textContent = (element.dataset.show === "short" ? short : WHOLE).format(time);
  if (element.dataset.show === "short") element.title = WHOLE.format(time);
}

async function copy(button) {
  const from = document.getElementById(button.dataset.copy);
  const text = (from.value ?? from.textContent).trim();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // without HTTPS, or without the permission
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = $("span", button);
  button.dataset.label ??= label.textContent;
  label.textContent = button.dataset.done;
  say(button.dataset.done, false);
  setTimeout(() => (label.textContent = button.dataset.label), 2500);
}

all("time[data-show]").forEach(showTime);
if (status.textContent.trim()) silence = setTimeout(() => (status.textContent = ""), 7000);
for (const button of all("[data-copy]")) button.addEventListener("click", () => copy(button));
all(".key-line input[readonly]").forEach((field) => field.addEventListener("focus", () => field.select()));

/* The link of a key ends in #KEY, which no server sees. The form posts it; the next page asks before it opens anything. */

const form = $("#open-form");
if (form && location.hash.length > 1) {
  form.elements.key.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  form.requestSubmit();
}

/* Without cookies an address would be opened and lost. Browsers that keep none may say that they do: one is tried. */

const noCookies = $("#no-cookies");
if (noCookies) {
  document.cookie = "probe=1; SameSite=Lax";
  noCookies.hidden = document.cookie.includes("probe=1");
  document.cookie = "probe=; Max-Age=0; SameSite=Lax";
}

/* What a browser remembers by itself: read messages, and two choices */

const remember = {
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(name));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, JSON.stringify(value));
    } catch {
      // no storage: nothing is remembered
    }
  },
};

if (page) live();

function live() {
  const { lease } = page.dataset;
  const seenName = `seen:${lease}`;
  const list = $("#rows");
  const below = [...all(".slide ~ *", page), $(".bottom")];
  const message = $("#message");
  const title = document.title;
  const clock = $(".clock", page);
  let skew = Date.now() - new Date(page.dataset.now); // the visitor's clock may be wrong; the way here makes it larger
  const known = new Set(all(".row", page).map((row) => row.dataset.delivery));
  const seen = new Set(remember.get(seenName) ?? []);
  let cursor = page.dataset.cursor;
  let until = page.dataset.until && new Date(page.dataset.until);
  let deliveries = Number(page.dataset.deliveries || 0);
  let ended = page.dataset.state === "expired";
  let unseen = 0; // arrived while the tab was hidden
  let others = 0; // arrived while an older page, or a search, is shown
  let leaving = false; // a form was sent, and its answer takes the place of this page

  /* Rows */

  function markRow(row) {
    const fresh = !seen.has(row.dataset.delivery);
    row.classList.toggle("unread", fresh);
    $(".fresh", row).hidden = !fresh;
  }

  function makeRow(mail) {
    const row = $("#row").content.firstElementChild.cloneNode(true);
    const put = (selector, text) => {
      const element = $(selector, row);
      if (element) element.textContent = text;
    };
    row.dataset.delivery = mail.delivery;
    const box = $("input", row);
    if (box) {
      box.value = mail.delivery;
      box.setAttribute("aria-label", box.dataset.label.replace("{}", () => mail.shown.subject));
    }
    $(".to", row).href = mail.url;
    put(".initial", mail.shown.initial);
    put(".sender", mail.shown.sender);
    put(".subject", mail.shown.subject);
    put(".preview", mail.preview ?? "");
    put(".recipient", mail.recipient ?? "");
    put(".count", mail.shown.attachments);
    $(".files", row).hidden = !mail.attachments;
    $(".unread-able", row).hidden = mail.state !== "failed";
    const time = $("time", row);
    time.dateTime = mail.received_at;
    showTime(time);
    markRow(row);
    return row;
  }

  /* What is below a new row slides down; a jump would count as a shift of the layout. So would a row that comes while an animation
   * runs: Chromium does not see that the next one starts where it was. Hence the script moves it, and nothing in a frame with a new row,
   * unless that frame comes late: nobody looked. */
  const above = new Map(); // elements, and how many pixels above their places they are shown
  let moved = 0;
  let added = -Infinity;

  function slide(element, height) {
    if (!height || document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    if (!above.size) requestAnimationFrame(settle);
    added = performance.now();
    lift(element, height + (above.get(element) ?? 0));
  }

  function settle(now) {
    const left = now - added < 500 ? 1 : Math.exp((moved - now) / 60);
    added = -Infinity;
    moved = now;
    for (const [element, height] of above) lift(element, height * left);
    if (above.size) requestAnimationFrame(settle);
  }

  function lift(element, height) {
    if (height < 0.5) above.delete(element);
    else above.set(element, height);
    element.style.transform = height < 0.5 ? "" : `translateY(${-height}px)`;
  }

  function addRow(mail) {
    const id = String(mail.delivery);
    cursor = mail.cursor;
    if (known.has(id)) return false;
    known.add(id);
    deliveries += 1;
    showFull();
    if (leading) notify(mail);
    if (document.hidden) unseen += 1;
    if (!page.dataset.first) {
      others += 1;
      return true;
    }
    document.body.classList.remove("bare");
    $(".tools", page).hidden = false;
    $("#empty")?.remove();
    const row = makeRow(mail);
    const tops = below.map((each) => each.offsetTop);
    list.prepend(row);
    slide(list, row.offsetHeight);
    below.forEach((each, place) => slide(each, each.offsetTop - tops[place]));
    return true;
  }

  function showFull(octets = 0, most = Infinity) {
    const full = $("#full");
    if (full) full.hidden = deliveries < Number(page.dataset.max) && octets < most;
  }

  function announce(text) {
    say(text);
    if (others) {
      const link = $("#news a");
      link.textContent = `${link.dataset.label} (${number.format(others)})`;
      $("#news").hidden = false;
    }
    if (unseen) document.title = `(${number.format(unseen)}) ${title}`;
  }

  const ends = { key_refused: "gone", expired: "expired" };

  async function fetchJson(url, options = {}) {
    const answer = await fetch(url, { ...options, headers: { Accept: "application/json" }, cache: "no-store" });
    const value = await answer.json();
    if (answer.ok) return value;
    if (value.error in ends) take({ kind: ends[value.error], data: {} });
    throw new Error(value.error);
  }

  function after(position, path) {
    const url = new URL(path, location);
    url.searchParams.set("after", position);
    return url;
  }

  let catching = null;

  /* Fetches what comes after our cursor. Returns how many rows were new. */
  function catchUp() {
    catching ??= (async () => {
      let count = 0;
      for (;;) {
        const { rows, text } = await fetchJson(after(cursor, page.dataset.rows));
        if (!rows.length) return count;
        for (const row of rows) {
          if (addRow(row)) count += 1;
        }
        if (count) announce(text);
      }
    })().finally(() => (catching = null));
    return catching;
  }

  /* Mail was deleted in another place: it leaves the list, and is not read on. */
  async function reload() {
    if (message && !leaving) {
      const answer = await fetch(message.dataset.url, { method: "HEAD", headers: { Accept: "application/json" }, cache: "no-store" });
      if (answer.status === 404 && !leaving) {
        const list = new URL($(".up", page).href);
        list.searchParams.set("notice", "not_found");
        return location.replace(list);
      }
    }
    if (!page.dataset.first) return;
    const { rows, older } = await fetchJson(page.dataset.rows);
    const here = new Set(rows.map((row) => String(row.delivery)));
    const oldest = older ? rows.at(-1).delivery : 0; // what is below it is on the next page
    for (const row of all(".row", list)) {
      if (!here.has(row.dataset.delivery) && Number(row.dataset.delivery) >= oldest) row.remove();
    }
  }

  /* Events, from the stream or from the tab that has it */

  const on = {
    async mail({ data, after }) {
      const missing = () => !known.has(String(data.delivery));
      if (!missing() || after === cursor) return addRow(data);
      await catchUp(); // which may have asked before this one was there
      if (missing()) await catchUp();
    },
    news({ data }) {
      announce(data.text);
    },
    async inbox({ data }) {
      if (ended) return leaving || location.reload();
      if (data.now) skew = Math.min(skew, Date.now() - new Date(data.now));
      until = data.expires_at && new Date(data.expires_at);
      const extend = $("#extend");
      if (extend) extend.hidden = !data.life_until || data.life_until <= data.expires_at;
      const grace = $("#grace time");
      if (grace && data.grace_until) {
        grace.dateTime = data.grace_until;
        showTime(grace);
      }
      tick();
      const fewer = data.deliveries !== null && data.deliveries < deliveries;
      deliveries = data.deliveries ?? deliveries;
      showFull(data.octets, data.max_octets);
      if (fewer) await reload();
    },
    expired({ data }) {
      // An inbox that has reached its longest life cannot be brought back.
      const lasting = !data.expires_at || new Date(data.life_until) > new Date(data.expires_at);
      if (!lasting) for (const each of all("#ended .can-return, #ended .cannot-return")) each.hidden = each.matches(".can-return");
      end("#ended");
    },
    gone() {
      stop();
      end("#gone");
      document.title = $("#gone h2").textContent;
      remember.set(seenName, null);
      $("#panes")?.remove();
      $(".card", page).hidden = true;
      $("#ended").hidden = true;
    },
    reset() {
      location.reload();
    },
  };

  async function take(event) {
    try {
      await on[event.kind]?.(event);
    } catch {
      // the next event, or the next poll, tries again
    }
  }

  function end(which) {
    if (ended && which === "#ended") return;
    ended = true;
    say($("h2", $(which)).textContent, false);
    $(which).hidden = false;
    for (const each of all(".life, .actions, .card > .button, .list", page)) each.hidden = true;
    if (!message) $("#panes")?.setAttribute("hidden", "");
  }

  /* The clock */

  let warned = null;
  const two = new Intl.NumberFormat(region, { minimumIntegerDigits: 2, useGrouping: false });
  const days = new Intl.NumberFormat(region, { style: "unit", unit: "day", unitDisplay: "long" });

  function tick() {
    if (!until || !clock || ended) return;
    const seconds = Math.max(0, Math.round((until - Date.now() + skew) / 1000));
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    clock.textContent =
      h >= 48 ? days.format(Math.floor(h / 24)) : h ? `${number.format(h)}:${two.format(m)}:${two.format(s)}` : `${number.format(m)}:${two.format(s)}`;
    $("#timer").classList.toggle("soon", seconds <= 60);
    if (seconds <= 60 && seconds > 0 && warned !== +until) {
      warned = +until;
      say(page.dataset.near);
    }
  }

  tick();
  setInterval(tick, 1000);

  const extendForm = $("#extend")?.form;
  extendForm?.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const inbox = await fetchJson(extendForm.action, { method: "POST" });
      await take({ kind: "inbox", data: inbox });
      say(extendForm.dataset.done);
    } catch (error) {
      if (error instanceof TypeError) say(extendForm.dataset.failed); // no connection: a form would replace the page by an error
      else extendForm.submit();
    }
  });

  /* The stream, in one tab; leading is whether it is this one */

  const name = `inbox:${lease}:${lang}`;
  const channel = new BroadcastChannel(name);
  const line = $("#link");
  const FIRST = 10000; // milliseconds: a proxy that collects what passes through sends nothing until then
  const SILENCE = 40000; // the stream says something every 15 seconds
  const MANY = 4; // cuts within a minute: something on the way does not like streams
  let leading = false;
  let source = null;
  let opened = false; // the stream has said something
  let failures = 0; // since it did
  let cuts = [];
  let timer = null;
  let alarm = null;
  let doubt = null;
  let spoke = 0;
  let state = "waiting";
  let heard = 0;
  let release = null;
  let stopped = false;
  let looked = 0;

  function show(now) {
    state = now;
    if (!line) return;
    line.dataset.state = now;
    $(".text", line).textContent = line.dataset[now];
  }

  function tell(now) {
    clearTimeout(doubt);
    doubt = null;
    show(now);
    channel.postMessage({ kind: "state", state: now });
  }

  function expectWithin(time) {
    clearTimeout(alarm);
    alarm = setTimeout(lost, time, true);
  }

  function alive() {
    opened = true;
    failures = 0;
    spoke = Date.now();
    if (state !== "live" || doubt) tell("live");
    expectWithin(SILENCE);
  }

  /* The stream was cut, or is silent. A short interruption is not worth a word. */
  function lost(silent) {
    const now = Date.now();
    cuts = cuts.filter((time) => now - time < 60000);
    if (opened) cuts.push(now); // not a server that is just starting
    failures += 1;
    if (failures >= 3 || cuts.length >= MANY || (silent && !opened)) {
      disconnect();
      poll(0);
      return;
    }
    if (silent) return connect();
    opened = false;
    if (state === "live") doubt ??= setTimeout(tell, 3000, "waiting");
    expectWithin(FIRST);
    if (source.readyState !== EventSource.CLOSED) return; // the browser comes back by itself
    disconnect();
    catchUp().catch(() => {}); // which says why, if the key opens nothing any more
    timer = setTimeout(connect, 2000);
  }

  function disconnect() {
    clearTimeout(timer);
    clearTimeout(alarm);
    source?.close();
  }

  function connect() {
    disconnect();
    if (stopped) return;
    opened = false;
    source = new EventSource(after(cursor, page.dataset.events));
    source.onerror = () => lost(false);
    expectWithin(FIRST);
    for (const kind of Object.keys(on)) {
      source.addEventListener(kind, ({ data }) => {
        alive();
        const event = { kind, data: JSON.parse(data), after: cursor };
        channel.postMessage(event);
        take(event);
      });
    }
    source.addEventListener("beat", alive);
  }

  /* Where no stream passes: every ten seconds, and each sixth time the stream is tried again. */
  async function poll(round) {
    clearTimeout(timer);
    try {
      const before = cursor;
      if (await catchUp()) channel.postMessage({ kind: "look", after: before });
      tell("polling");
    } catch {
      tell("waiting");
    }
    if (leading && !stopped) timer = setTimeout(() => (round < 5 ? poll(round + 1) : connect()), 10000);
  }

  function lead() {
    leading = true;
    connect();
    return new Promise((resolve) => (release = resolve));
  }

  function follow(error) {
    leading = false;
    clearTimeout(doubt);
    disconnect();
    if (error?.name === "AbortError" && !stopped) queue();
  }

  function queue(options = {}) {
    navigator.locks.request(name, options, lead).then(follow, follow);
  }

  /* The tab that leads may be suspended, as phones do: then it does not answer, and a tab that is looked at takes its place. */
  function check() {
    if (leading || stopped) return;
    const asked = Date.now();
    channel.postMessage({ kind: "who" });
    setTimeout(() => {
      if (!leading && heard < asked && !stopped) queue({ steal: true });
    }, 1500);
  }

  function stop() {
    stopped = true;
    follow();
    release?.();
  }

  channel.onmessage = ({ data }) => {
    if (data.kind === "who") {
      if (leading) channel.postMessage({ kind: "state", state });
      return;
    }
    if (data.kind === "looking") {
      if (!document.hidden) channel.postMessage({ kind: "looked" });
      return;
    }
    if (data.kind === "looked") {
      looked = Date.now();
      return;
    }
    heard = Date.now();
    if (data.kind === "state") show(data.state);
    else if (data.kind === "look") catchUp().catch(() => {});
    else take(data);
  };

  function join() {
    if (!navigator.locks) return lead(); // without HTTPS, each tab has its own
    const ask = (lock) => {
      if (lock) return lead();
      queue();
      check();
      if (!ended) catchUp().catch(() => {}); // what came between this page and the next event from the other tab
    };
    navigator.locks.request(name, { ifAvailable: true }, ask).then(follow, follow);
  }

  join();

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    unseen = 0;
    document.title = title;
    tick();
    if (leading && opened && Date.now() - spoke > SILENCE) connect(); // the device slept
    check();
  });

  /* A page that the browser keeps for "back" must not hold the lock; it goes on where it was. */
  addEventListener("pagehide", () => {
    release?.();
    follow();
  });
  addEventListener("pageshow", (event) => {
    if (!event.persisted || stopped) return;
    join();
    reload().catch(() => {}); // what was deleted meanwhile
  });

  addEventListener("submit", (event) => (leaving ||= !event.defaultPrevented));

  /* All rows that are shown, or none */
  $("#select-all")?.addEventListener("click", () => {
    const boxes = all(".row input", page);
    const on = boxes.some((box) => !box.checked);
    for (const box of boxes) box.checked = on;
    if (!on) boxes[0]?.focus(); // the button goes with the selection
  });

  /* Read messages */

  if (message && !seen.has(message.dataset.delivery)) {
    seen.add(message.dataset.delivery);
    remember.set(seenName, [...seen].slice(-1000));
  }
  all(".row", page).forEach(markRow);
  const current = $("[aria-current]", list ?? page);
  const scroller = $(".list", page);
  if (current && scroller && current.closest(".row").offsetTop > scroller.clientHeight) {
    scroller.scrollTop = current.closest(".row").offsetTop - scroller.clientHeight / 3;
  }
  for (const each of all("form[data-forget]")) each.addEventListener("submit", () => remember.set(seenName, null));
  addEventListener("storage", (event) => {
    if (event.key !== seenName) return;
    (remember.get(seenName) ?? []).forEach((id) => seen.add(id));
    all(".row", page).forEach(markRow);
  });

  /* Notifications, while the tab is not looked at */

  const bell = $("#notify");
  const wants = () => remember.get("notify") && Notification.permission === "granted";

  function showBell() {
    bell.setAttribute("aria-pressed", String(Boolean(wants())));
    $("span", bell).textContent = wants() ? bell.dataset.on : bell.dataset.off;
  }

  if (bell && "Notification" in window && Notification.permission !== "denied") {
    bell.hidden = false;
    bell.dataset.off = $("span", bell).textContent;
    showBell();
    bell.addEventListener("click", async () => {
      if (wants()) remember.set("notify", null);
      else remember.set("notify", (await Notification.requestPermission()) === "granted" || null);
      showBell();
    });
  }

  let rung = [];

  /* From the tab that leads, unless one of them is looked at; three in ten seconds, whatever arrives: the title counts the rest. */
  function notify(mail) {
    if (!document.hidden || !("Notification" in window) || !wants()) return;
    const asked = Date.now();
    rung = rung.filter((time) => asked - time < 10000);
    if (rung.push(asked) > 3) return;
    channel.postMessage({ kind: "looking" });
    setTimeout(() => looked < asked && ring(mail), 300);
  }

  function ring(mail) {
    try {
      const shown = new Notification(mail.shown.sender, { body: mail.shown.subject, tag: `${name}:${mail.delivery}`, lang });
      shown.onclick = () => {
        window.focus();
        shown.close();
        location.assign(mail.url);
      };
    } catch {
      // some phones allow them to service workers only
    }
  }

  /* Keys. On another keyboard than a Latin one, the place of the key counts. */

  const useKeys = $("#use-keys");
  useKeys.checked = remember.get("keys") ?? true;
  useKeys.addEventListener("change", () => remember.set("keys", useKeys.checked));

  function step(by) {
    const to = message?.dataset[by > 0 ? "next" : "previous"];
    if (message) return to && location.assign(to);
    const links = all(".to", list);
    const at = links.indexOf($(".row:focus-within .to", list));
    links[Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
  }

  const keys = {
    j: () => step(1),
    k: () => step(-1),
    o: () => $(".row:focus-within .to", list)?.click(),
    u: () => message && location.assign($(".up", page).href),
    c: () => $("[data-copy=address]", page)?.click(),
    "?": () => $("#keys").togglePopover(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    if (event.target.closest("select, textarea, input:not([type=checkbox], [type=radio])")) return;
    const key = /^[ -~]$/.test(event.key) ? event.key : event.code.replace(/^Key/, "").toLowerCase();
    if (!(key in keys) || ($(":popover-open") && key !== "?") || (!useKeys.checked && key !== "?")) return;
    event.preventDefault();
    keys[key]();
  });
}
