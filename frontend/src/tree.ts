/** A chat is a tree of messages; one path through it is shown. */

type Node = { id: number; parent_id: number | null };

/** A message on the shown path, and all that were said in its place, oldest first. */
export type Turn<M> = { message: M; siblings: M[] };

/** The path from the root: at each fork the chosen child, else the latest. `chosen` maps a parent's id to a child's. */
export function branch<M extends Node>(messages: M[], chosen: ReadonlyMap<number | null, number>): Turn<M>[] {
  const children = new Map<number | null, M[]>();
  for (const message of [...messages].sort((one, other) => one.id - other.id)) {
    children.set(message.parent_id, [...(children.get(message.parent_id) ?? []), message]);
  }
  const path: Turn<M>[] = [];
  let parent: number | null = null;
  for (;;) {
    const siblings: M[] | undefined = children.get(parent);
    if (!siblings) return path;
    const message: M = siblings.find((one) => one.id === chosen.get(parent)) ?? siblings.at(-1)!;
    path.push({ message, siblings });
    parent = message.id;
  }
}
