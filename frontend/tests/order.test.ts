import assert from "node:assert/strict";
import { test } from "node:test";
import { moved, orderOf, putNext, ranksOf, takeBack, tieLast } from "../src/order.ts";

test("numbers, ties and take-backs make ranks", () => {
  let order = [30, 10, 20].reduce<ReturnType<typeof putNext>>(putNext, []);
  order = putNext(tieLast(order), 40);
  assert.deepEqual(ranksOf(order), { 30: 1, 10: 2, 20: 2, 40: 3 });
  assert.deepEqual(ranksOf(takeBack(takeBack(order))), { 30: 1, 10: 2 });
  assert.deepEqual(ranksOf(putNext(order, 30)), { 10: 1, 20: 1, 40: 2, 30: 3 });
  assert.deepEqual(tieLast([[1]]), [[1]]);
  assert.deepEqual(takeBack([]), []);
});

test("a drag moves an answer to a place of its own or into a tie", () => {
  const order = [[1], [2], [3]];
  assert.deepEqual(moved(order, 3, 0, false), [[3], [1], [2]]);
  assert.deepEqual(moved(order, 1, 3, false), [[2], [3], [1]]);
  assert.deepEqual(moved(order, 1, 2, true), [[2], [3, 1]]);
  assert.deepEqual(moved(order, 9, 1, false), [[1], [9], [2], [3]]);
});

test("ranks and orders say the same", () => {
  assert.deepEqual(orderOf({ 7: 2, 8: 1, 9: 2 }), [[8], [7, 9]]);
  assert.deepEqual(orderOf({}), []);
});
