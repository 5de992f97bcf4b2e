// Sends the form to /v1/rerank as a stream and draws its events. All texts are set as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const SHOWN = 50; // passages of the order so far that are drawn
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
let run = null;

function make(tag, properties, ...children) {
  const { data = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

// A text of others: its direction is its own, and it cannot turn what is around it.
const text = (value, className = "") => make("bdi", { className, textContent: value });

function passages() {
  const all = $("passages").value.replace(/\r\n?/g, "\n").trim();
  const parts = /\n\s*\n/.test(all) ? all.split(/\n\s*\n/) : all.split("\n");
  return parts.map((part) => part.trim()).filter(Boolean);
}

function start(text) {
  const line = text.replace(/\s+/g, " ");
  return line.length > 140 ? `${line.slice(0, 140)}…` : line;
}

function say(line) {
  $("status").textContent = line;
}

function fail(line) {
  if ($("problem").textContent !== line) $("problem").textContent = line; // an alert is read whenever it is set
  $("problem").hidden = false;
}

function figures() {
  const { answered, opened, tokens, began, ended } = run;
  const seconds = ((ended ?? performance.now()) - began) / 1000;
  const shown = [
    ["comparisons answered", answered.toLocaleString("en"), `of ${opened} opened`],
    ["prompt tokens", tokens.input.toLocaleString("en"), ""],
    ["completion tokens", tokens.output.toLocaleString("en"), run.isDone ? `${tokens.reasoning.toLocaleString("en")} of reasoning` : ""],
    ["seconds", seconds.toFixed(1), ""],
  ];
  $("figures").replaceChildren(
    ...shown.map(([name, value, note]) =>
      make("div", {}, make("dt", {}, `${name} `, make("small", { textContent: note })), make("dd", { textContent: value })),
    ),
  );
}

function drawOrder(order, selected) {
  const list = $("order");
  const before = new Map([...list.children].map((item) => [item.dataset.index, item.getBoundingClientRect().top]));
  const items = order.slice(0, SHOWN).map((index, place) =>
    make(
      "li",
      { className: place < selected ? "selected" : "", data: { index } },
      make("span", { className: "number", textContent: place + 1 }),
      text(start(run.texts[index]), "name"),
    ),
  );
  if (order.length > SHOWN) items.push(make("li", { className: "more", textContent: `and ${order.length - SHOWN} more` }));
  list.replaceChildren(...items);
  for (const item of calm.matches ? [] : items) {
    const moved = (before.get(item.dataset.index) ?? NaN) - item.getBoundingClientRect().top;
    if (moved) item.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], { duration: 250, easing: "ease-out" });
  }
}

function chips(set, winner) {
  return set.map((index) =>
    make("span", { className: index === winner ? "chip chosen" : "chip", textContent: index === winner ? `${index + 1} ✓` : index + 1, title: start(run.texts[index]) }),
  );
}

const draw = {
  comparison({ comparison, round, set }) {
    const reasoning = make("p", { className: "reasoning prose", dir: "auto", tabIndex: 0 }); // it scrolls
    reasoning.setAttribute("role", "group");
    reasoning.setAttribute("aria-label", `Reasoning of comparison ${comparison + 1}`);
    const number = make("span", { className: "number", textContent: comparison + 1 });
    const row = make("span", { className: "chips" }, ...chips(set));
    for (const drawn of [number, row]) drawn.setAttribute("aria-hidden", "true");
    const shown = set.map((index) => index + 1).join(", ");
    const spoken = make("span", { className: "spoken", textContent: `Comparison ${comparison + 1}, round ${round + 1}, passages ${shown}` });
    const summary = make("summary", {}, number, spoken, row);
    const item = make("li", { className: "set-open" }, make("details", { open: run.opened < 6 }, summary, reasoning));
    $("sets").prepend(item);
    run.sets.set(comparison, { item, summary, spoken, row, reasoning, set, written: "" });
    run.opened += 1;
    if (round > run.round) say(`Round ${round + 1}, ${count(run.answered, "comparison")} answered.`);
    run.round = round;
  },
  reasoning({ comparison, start, text }) {
    const one = run.sets.get(comparison);
    one.written = one.written.slice(0, start) + text;
    one.reasoning.textContent = one.written.replace(/<\/?(think|answer)>/g, " ").trim();
    one.reasoning.scrollTop = one.reasoning.scrollHeight;
  },
  answer({ comparison, answer, parsed, reasoning, tokens, scores }) {
    const { item, summary, spoken, row, reasoning: paragraph, set } = run.sets.get(comparison);
    const winner = answer[0];
    paragraph.textContent = reasoning || "The model wrote no reasoning.";
    row.replaceChildren(...chips(set, winner));
    if (!parsed) summary.append(make("span", { className: "unclear", textContent: "no clear answer: the first counts" }));
    const score = scores?.[set.indexOf(winner)];
    const outcome = scores ? `scored ${score?.toFixed(2) ?? "nothing"}` : "won";
    spoken.textContent += `. Passage ${winner + 1} ${outcome}: ${start(run.texts[winner]).replace(/\.$/, "")}. `;
    item.className = "";
    item.firstChild.open = false;
    run.answered += 1;
    run.tokens.input += tokens.input_tokens;
    run.tokens.output += tokens.output_tokens;
  },
  order({ order, selected }) {
    run.order = order;
    drawOrder(order, selected);
  },
  done({ results, meta, rankr1 }) {
    run.isDone = true;
    run.tokens.reasoning = rankr1.cost.reasoning_tokens;
    drawOrder(results.map((result) => result.index), rankr1.k);
    const whys = new Map(rankr1.reasoning.map((why) => [why.index, why]));
    $("warnings").replaceChildren(...(meta.warnings ?? []).map((line) => make("li", { textContent: line })));
    $("link").hidden = !rankr1.page;
    if (rankr1.page) $("page").href = rankr1.page.replace(/^\//, "");
    $("cards").replaceChildren(...results.map((result, place) => card(result, place, whys.get(result.index))));
    $("result").hidden = false;
    $("result-title").focus();
    say(`Done: ${count(results.length, "passage")} in order after ${count(run.answered, "comparison")}.`);
  },
  error({ message }) {
    fail(message);
  },
};

function card({ index, relevance_score }, place, why) {
  const moved = index - place;
  const from = moved ? `from ${index + 1}` : "as before";
  const isScored = why?.score !== undefined;
  const record = isScored ? `the model's score ${why.score.toFixed(2)}` : why && why.won + why.lost ? `first in ${why.won} of ${count(why.won + why.lost, "comparison")}` : "never compared";
  const header = make(
    "header",
    {},
    make("span", { className: "rank", textContent: place + 1 }),
    make("p", { className: "meta" }, make("span", { className: moved > 0 ? "move up" : "move", textContent: from }), make("span", { textContent: record }), make("span", { textContent: `score ${relevance_score.toFixed(3)}`, title: "by its rank alone, if the model gives no probabilities" })),
  );
  const body = make("p", { className: "text prose", dir: "auto", textContent: run.texts[index] });
  const article = make("article", {}, header, body);
  if (why?.reasoning) {
    const quote = make("blockquote", { className: "prose", dir: "auto", textContent: why.reasoning });
    article.append(make("div", { className: "why" }, make("h4", { textContent: isScored ? "Why: the reasoning of its score" : why.won ? "Why: the last set it won" : "Why: the last set it lost" }), quote));
  }
  return make("li", { className: "card" }, article);
}

async function* events(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const found = /^event: (\w+)\ndata: (.*)$/s.exec(part);
      if (found) yield [found[1], JSON.parse(found[2])];
    }
  }
}

async function ask(body, signal) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const response = await fetch("v1/rerank", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) {
    const { message } = await response.json().catch(() => ({}));
    if (response.status === 401) {
      $("key-field").hidden = false;
      $("key").focus();
    }
    throw new Error(message ?? `the server answered ${response.status}`);
  }
  for await (const [name, data] of events(response)) draw[name]?.(data);
  if (!run.isDone && $("problem").hidden) throw new Error("the stream ended before the order was complete");
}

async function rerank(event) {
  event.preventDefault();
  const texts = passages();
  if (!texts.length || run?.controller) return;
  const controller = new AbortController();
  run = { controller, texts, sets: new Map(), opened: 0, answered: 0, round: 0, order: texts.map((_, index) => index) };
  Object.assign(run, { tokens: { input: 0, output: 0, reasoning: 0 }, began: performance.now(), isDone: false });
  const own = { include: ["reasoning", "cost", "page"] };
  if ($("k").value) own.k = Number($("k").value);
  if ($("deadline").value) own.deadline = Number($("deadline").value);
  $("problem").hidden = $("result").hidden = true;
  $("run").hidden = false;
  $("sets").replaceChildren();
  $("start").disabled = true;
  $("stop").disabled = false;
  drawOrder(run.order, 0);
  say(`Ranking ${count(texts.length, "passage")}.`);
  $("stop").focus();
  figures();
  const clock = setInterval(figures, 200);
  try {
    await ask({ query: $("query").value, documents: texts, stream: true, rankr1: own }, controller.signal);
  } catch (error) {
    if (controller.signal.aborted) {
      say("Stopped. The order so far is kept.");
      fail("Stopped: this is the order so far, and its open comparisons were cancelled.");
    } else {
      fail(error.message);
    }
  } finally {
    clearInterval(clock);
    run.ended = performance.now();
    run.controller = null;
    figures();
    for (const { item } of run.sets.values()) item.className = "";
    $("start").disabled = false;
    if (document.activeElement === $("stop")) $("start").focus();
    $("stop").disabled = true;
  }
}

const EXAMPLE = {
  query: "Which river flows through the city where the inventor of dynamite was born?",
  passages: [
    "Dynamite is an explosive made of nitroglycerin, sorbents and stabilizers. It was patented in 1867.",
    "The Seine flows through Paris, where many inventors showed their work at the World's Fair of 1867.",
    "Alfred Nobel, the inventor of dynamite, was born in Stockholm on 21 October 1833.",
    "Stockholm is built on fourteen islands where Lake Mälaren meets the Baltic Sea; the stream Norrström runs through its centre.",
    "The Nobel Prizes were first awarded in 1901, five years after the death of their founder.",
    "Nitroglycerin was discovered in 1847 by the Italian chemist Ascanio Sobrero in Turin, on the river Po.",
    "The Göta älv is a river that flows into the Kattegat at Gothenburg, on the west coast of Sweden.",
    "Immanuel Nobel moved to Saint Petersburg, on the river Neva, and opened a workshop there.",
  ],
};

function counted() {
  const n = passages().length;
  $("count").textContent = n ? `${count(n, "passage")}.` : "One passage a line, or paragraphs with blank lines between them.";
}

$("form").addEventListener("submit", rerank);
$("stop").addEventListener("click", () => run?.controller?.abort());
$("passages").addEventListener("input", counted);
$("example").addEventListener("click", () => {
  $("query").value = EXAMPLE.query;
  $("passages").value = EXAMPLE.passages.join("\n");
  counted();
  $("start").focus();
});

let unready = ""; // the problem that is shown until the server is ready
async function ready() {
  const problem = await fetch("ready").then(
    async (response) => (response.ok ? "" : `Not ready yet: ${(await response.json().catch(() => ({}))).message ?? response.status}`),
    () => "The server does not answer.",
  );
  if (problem) fail(problem);
  else if (unready && $("problem").textContent === unready) $("problem").hidden = true;
  unready = problem;
  if (problem) setTimeout(ready, 2000);
}
ready();
