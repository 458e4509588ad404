/** Answers put in order: places from best to worst, several answers at one place are a tie. */

export type Order = readonly (readonly number[])[];

/** With this answer at the last place, wherever it was before. */
export function putNext(order: Order, answer: number): Order {
  return [...without(order, answer), [answer]];
}

/** With the last place joined to the one before it. */
export function tieLast(order: Order): Order {
  if (order.length < 2) return order;
  return [...order.slice(0, -2), [...order.at(-2)!, ...order.at(-1)!]];
}

/** Without the answer that was placed last. */
export function takeBack(order: Order): Order {
  const last = order.at(-1);
  return last ? without(order, last.at(-1)!) : order;
}

/** With this answer moved: to a place of its own before place `to`, or `tied` with those at place `to`. */
export function moved(order: Order, answer: number, to: number, tied: boolean): Order {
  const places = order.map((place) => place.filter((one) => one !== answer));
  if (tied) places[to] = [...(places[to] ?? []), answer];
  else places.splice(to, 0, [answer]);
  return places.filter((place) => place.length);
}

/** 1 for each answer at the best place, 2 for the next, ... */
export function ranksOf(order: Order): Record<string, number> {
  return Object.fromEntries(order.flatMap((place, at) => place.map((answer) => [String(answer), at + 1])));
}

/** The order that these ranks say. */
export function orderOf(ranks: Record<string, number>): Order {
  const places: number[][] = [];
  for (const [answer, rank] of Object.entries(ranks)) (places[rank] ??= []).push(Number(answer));
  return places.filter((place) => place);
}

function without(order: Order, answer: number): Order {
  return order.map((place) => place.filter((one) => one !== answer)).filter((place) => place.length);
}
