import assert from "node:assert/strict";
import { test } from "node:test";
import { en } from "../src/words/en.ts";
import { zh } from "../src/words/zh.ts";

/** Each word's path with its kind: text, or how many things it is about. */
function shape(words: object, path = ""): [string, string | number][] {
  return Object.entries(words).flatMap(([key, word]) =>
    typeof word === "object" ? shape(word, `${path}${key}.`) : [[path + key, typeof word === "function" ? word.length : "text"]],
  );
}

test("both languages say the same things", () => {
  assert.deepEqual(shape(zh).sort(), shape(en).sort());
});

test("what reads as a sentence is translated", () => {
  const same = Object.keys(en).filter((key) => en[key as "chat"] === zh[key as "chat"]);
  assert.deepEqual(same, ["topP", "topK", "minP"]);
});
