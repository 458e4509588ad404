import assert from "node:assert/strict";
import { test } from "node:test";
import { branch } from "../src/tree.ts";

const say = (id: number, parent_id: number | null) => ({ id, parent_id });
const messages = [say(1, null), say(2, 1), say(3, 1), say(4, 3), say(5, null), say(6, 2)];
const shown = (...chosen: [number | null, number][]) =>
  branch(messages, new Map(chosen)).map((turn) => [turn.message.id, turn.siblings.length]);

test("the latest branch is shown unless another is chosen", () => {
  assert.deepEqual(shown(), [[5, 2]]);
  assert.deepEqual(shown([null, 1]), [[1, 2], [3, 2], [4, 1]]);
  assert.deepEqual(shown([null, 1], [1, 2]), [[1, 2], [2, 2], [6, 1]]);
  assert.deepEqual(shown([null, 99]), [[5, 2]]);
  assert.deepEqual(branch([], new Map()), []);
});
