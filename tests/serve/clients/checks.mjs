// The official client against a server of the models `echo`, `slow` and `tiny`; one JSON line per check.
//   node checks.mjs http://127.0.0.1:8000/v1
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const TEXT = "hi 你好 😀";
const SIZE = Buffer.byteLength(TEXT);
const USER = [{ role: "user", content: TEXT }];

const chat = (options = {}, ...more) =>
  client.chat.completions.create({ model: "echo", messages: USER, ...options }, ...more);
const complete = (options = {}) => client.completions.create({ model: "echo", prompt: "once", ...options });
const content = (answer) => answer.choices[0].message.content;

async function all(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}
const said = (events, index = 0) =>
  events.flatMap((one) => one.choices).filter((one) => one.index === index)
    .map((one) => one.delta?.content ?? one.text ?? "").join("");

async function refused(work, kind, fields = {}) {
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value);
    return true;
  });
}
const bad = (options, fields) => refused(() => chat(options), OpenAI.BadRequestError, fields);

const checks = {
  async "models are listed"() {
    assert.deepEqual((await client.models.list()).data.map((one) => one.id), ["echo", "slow", "tiny"]);
  },
  async "one model is retrieved"() {
    assert.equal((await client.models.retrieve("tiny")).id, "tiny");
  },
  "a model that is not there is not retrieved": () =>
    refused(() => client.models.retrieve("none"), OpenAI.NotFoundError, { code: "model_not_found" }),
  async "an answer"() {
    const answer = await chat();
    assert.equal(content(answer), TEXT);
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.object, "chat.completion");
  },
  async "usage"() {
    const usage = (await chat()).usage;
    assert.deepEqual(usage, { prompt_tokens: SIZE, completion_tokens: SIZE + 1, total_tokens: 2 * SIZE + 1 });
  },
  async "an identity and a date"() {
    const answer = await chat();
    assert.match(answer.id, /^chatcmpl-/);
    assert.ok(Math.abs(answer.created - Date.now() / 1000) < 60);
  },
  async "the raw response"() {
    const { data, response } = await chat().withResponse();
    assert.equal(response.headers.get("content-type"), "application/json");
    assert.equal(content(data), TEXT);
  },
  async "a stream"() {
    const events = await all(chat({ stream: true }));
    assert.equal(said(events), TEXT);
    assert.ok(events.length > 5);
    assert.equal(events[0].choices[0].delta.role, "assistant");
  },
  async "a stream ends with its reason"() {
    const events = await all(chat({ stream: true }));
    assert.deepEqual(events.map((one) => one.choices[0].finish_reason).filter(Boolean), ["stop"]);
  },
  async "a stream holds whole characters"() {
    const events = await all(chat({ stream: true }));
    assert.ok(events.every((one) => !(one.choices[0].delta.content ?? "").includes("\ufffd")));
  },
  async "a stream has one identity"() {
    assert.equal(new Set((await all(chat({ stream: true }))).map((one) => one.id)).size, 1);
  },
  async "a stream with usage"() {
    const events = await all(chat({ stream: true, stream_options: { include_usage: true } }));
    assert.deepEqual(events.at(-1).choices, []);
    assert.equal(events.at(-1).usage.completion_tokens, SIZE + 1);
    assert.ok(events.slice(0, -1).every((one) => one.usage === null));
  },
  async "the client's own gathering of a stream"() {
    const stream = client.chat.completions.stream({ model: "echo", messages: USER });
    assert.equal(content(await stream.finalChatCompletion()), TEXT);
  },
  async "the events of the client's own stream"() {
    const pieces = [];
    const stream = client.chat.completions.stream({ model: "echo", messages: USER });
    stream.on("content", (piece) => pieces.push(piece));
    await stream.done();
    assert.equal(pieces.join(""), TEXT);
  },
  async "max_tokens"() {
    const answer = await chat({ max_tokens: 2 });
    assert.deepEqual([content(answer), answer.choices[0].finish_reason], ["hi", "length"]);
  },
  async "max_completion_tokens"() {
    assert.equal((await chat({ max_completion_tokens: 2 })).usage.completion_tokens, 2);
  },
  async "a stop string"() {
    assert.equal(content(await chat({ stop: "你" })), "hi ");
  },
  async "several stop strings"() {
    assert.equal(content(await chat({ stop: ["x", "你好"] })), "hi ");
  },
  async "a stop string in a stream"() {
    assert.equal(said(await all(chat({ stream: true, stop: "好" }))), "hi 你");
  },
  async "several choices"() {
    const answer = await chat({ n: 3 });
    assert.deepEqual(answer.choices.map((one) => [one.index, one.message.content]), [[0, TEXT], [1, TEXT], [2, TEXT]]);
  },
  async "several choices in a stream"() {
    const events = await all(chat({ n: 2, stream: true }));
    assert.deepEqual([said(events, 0), said(events, 1)], [TEXT, TEXT]);
  },
  async "log-probabilities"() {
    const found = (await chat({ logprobs: true })).choices[0].logprobs.content;
    assert.equal(found.length, SIZE);
    assert.ok(Math.abs(found[0].logprob + 0.1) < 1e-6);
  },
  async "the likeliest tokens"() {
    const found = (await chat({ logprobs: true, top_logprobs: 3 })).choices[0].logprobs.content;
    assert.ok(found.every((one) => one.top_logprobs.length === 3));
  },
  async "the true bytes of tokens"() {
    const found = (await chat({ logprobs: true })).choices[0].logprobs.content;
    assert.equal(Buffer.from(found.flatMap((one) => one.bytes)).toString(), TEXT);
  },
  async "log-probabilities in a stream"() {
    const events = await all(chat({ logprobs: true, stream: true }));
    assert.equal(events.flatMap((one) => one.choices[0].logprobs?.content ?? []).length, SIZE);
  },
  async "a developer and parts of a message"() {
    const parts = [{ type: "text", text: "one " }, { type: "text", text: "two" }];
    const answer = await chat({ messages: [{ role: "developer", content: "x" }, { role: "user", content: parts }] });
    assert.equal(content(answer), "one two");
  },
  async "a completion"() {
    const answer = await complete({ max_tokens: 3, logprobs: 2 });
    assert.deepEqual([answer.choices[0].text, answer.choices[0].finish_reason], ["onc", "length"]);
    assert.deepEqual(answer.choices[0].logprobs.tokens, ["o", "n", "c"]);
  },
  async "a completion that begins with its prompt"() {
    assert.equal((await complete({ echo: true })).choices[0].text, "onceonce");
  },
  async "a completion in a stream"() {
    assert.equal(said(await all(complete({ stream: true }))), "once");
  },
  async "completions of several prompts"() {
    const answer = await complete({ prompt: ["one", "two"], n: 2 });
    assert.deepEqual(answer.choices.map((one) => one.text), ["one", "one", "two", "two"]);
  },
  async "a seed says it again"() {
    const ask = (seed) => chat({ model: "tiny", seed, max_tokens: 20 }).then(content);
    const [one, again, other] = [await ask(5), await ask(5), await ask(6)];
    assert.equal(one, again);
    assert.notEqual(one, other);
  },
  async "no temperature says it again, whoever else asks"() {
    const ask = (options) => chat({ model: "tiny", max_tokens: 16, ...options }).then(content);
    const alone = await ask({ temperature: 0 });
    const answers = await Promise.all([0, 1, 0, 1.5, 0].map((temperature) => ask({ temperature })));
    assert.deepEqual([answers[0], answers[2], answers[4]], [alone, alone, alone]);
  },
  async "penalties change what is said"() {
    const ask = (options) => chat({ model: "tiny", seed: 1, max_tokens: 40, ...options }).then(content);
    assert.notEqual(await ask({}), await ask({ frequency_penalty: 2 }));
    assert.notEqual(await ask({}), await ask({ presence_penalty: 2 }));
  },
  async "the likeliest token alone"() {
    const ask = (options) => chat({ model: "tiny", max_tokens: 12, ...options }).then(content);
    assert.equal(await ask({ top_p: 1e-9, seed: 3 }), await ask({ temperature: 0 }));
  },
  async "a stream of the engine is its answer"() {
    const options = { model: "tiny", seed: 3, max_tokens: 24 };
    assert.equal(said(await all(chat({ ...options, stream: true }))), content(await chat(options)));
  },
  "a temperature out of range": () => bad({ temperature: 2.5 }, { param: "temperature", status: 400 }),
  "a limit out of range": () => bad({ max_tokens: -1 }, { param: "max_tokens" }),
  "too many choices": () => bad({ n: 1e9 }, { param: "n", type: "invalid_request_error" }),
  "a field that is not heeded": () => bad({ tools: [] }, { param: "tools", code: "unknown_parameter" }),
  "no messages": () => bad({ messages: [] }, { param: "messages" }),
  "a role that is none": () => bad({ messages: [{ role: "x", content: "x" }] }, { param: "messages[0].role" }),
  "a context that is too short": () => bad({ max_tokens: 4096 }, { code: "context_length_exceeded" }),
  "a model that is not there": () =>
    refused(() => chat({ model: "gpt-4" }), OpenAI.NotFoundError, { param: "model", code: "model_not_found" }),
  "a body that is too large": () =>
    refused(() => chat({ messages: Array(2).fill({ role: "user", content: "x".repeat(9e5) }) }), OpenAI.APIError,
      { status: 413 }),
  async "a stream that is broken off"() {
    const stream = await chat({ model: "slow", messages: [{ role: "user", content: "x".repeat(500) }], stream: true });
    for await (const _ of stream) break;
    assert.ok(stream.controller.signal.aborted);
  },
  async "a request that is aborted"() {
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 200);
    const messages = [{ role: "user", content: "x".repeat(500) }];
    await refused(() => chat({ model: "slow", messages }, { signal: abort.signal }), OpenAI.APIUserAbortError);
  },
  async "a request that takes too long"() {
    const messages = [{ role: "user", content: "x".repeat(500) }];
    await refused(() => chat({ model: "slow", messages }, { timeout: 200 }), OpenAI.APIConnectionTimeoutError);
  },
  async "many at once"() {
    const answers = await Promise.all(Array.from({ length: 50 }, () => chat()));
    assert.ok(answers.every((one) => content(one) === TEXT));
  },
};

for (const [name, check] of Object.entries(checks)) {
  let error = null;
  try {
    await check();
  } catch (caught) {
    error = String(caught.message ?? caught);
  }
  console.log(JSON.stringify({ name, ok: error === null, error }));
}
