/** Labels on their way: kept in this browser until the server has them, and sent again under the same key. */

import { ApiError, ask, newKey } from "./api.ts";
import { session } from "./session.svelte.ts";

/** A label; `at` is when it was given, in milliseconds. */
type Item = { owner: number; at: number; path: string; body: Record<string, unknown> & { key: string } };

const PLACE = "outbox ";
const LONGEST_WAIT = 15_000;

class Outbox {
  waiting = $state<Item[]>(kept());
  refused = $state.raw<{ why: string; item: Item }[]>([]);
  private sending: Promise<void> | null = null;
  private wake: (() => void) | null = null;

  constructor() {
    addEventListener("online", () => this.wake?.());
  }

  /** Whether something of this person's is not saved yet. */
  get isWaiting(): boolean {
    return this.mine !== undefined;
  }

  /** What the server refused of this person's. */
  get refusals(): { why: string; item: Item }[] {
    return this.refused.filter(({ item }) => item.owner === session.me?.id);
  }

  /** Tell no more of an item that was refused. */
  forget(item: Item): void {
    this.refused = this.refused.filter((one) => one.item !== item);
  }

  /** Whether the server took it; resolves once it did, or refused it for good, or the session ended. */
  async send(path: string, body: Record<string, unknown>): Promise<boolean> {
    const item = { owner: session.me!.id, at: Date.now(), path, body: { ...body, key: newKey() } };
    this.waiting = [...this.waiting, item];
    keep(item);
    await this.flush();
    const isItem = (one: Item) => one.body.key === item.body.key;
    return !this.waiting.some(isItem) && !this.refused.some((one) => isItem(one.item));
  }

  /** Send what waits, the oldest first, until nothing is left. */
  flush(): Promise<void> {
    this.sending ??= this.sendAll().finally(() => (this.sending = null));
    return this.sending;
  }

  private get mine(): Item | undefined {
    return this.waiting.find((item) => item.owner === session.me?.id);
  }

  private async sendAll(): Promise<void> {
    let wait = 1000;
    for (let item = this.mine; item; item = this.mine) {
      try {
        await ask("POST", item.path, item.body);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.passing || error.code === "wrong_csrf") {
          session.told(error); // leads to the log-in, or finds what another tab's log-in changed
          await new Promise<void>((done) => {
            this.wake = done;
            setTimeout(done, wait);
          });
          wait = Math.min(2 * wait, LONGEST_WAIT);
          continue;
        }
        this.refused = [...this.refused, { why: error.message, item }];
      }
      const sent = item.body.key;
      this.waiting = this.waiting.filter((one) => one.body.key !== sent);
      localStorage.removeItem(PLACE + sent);
      wait = 1000;
    }
  }
}

function kept(): Item[] {
  const places = Object.keys(localStorage).filter((place) => place.startsWith(PLACE));
  return places.map((place) => JSON.parse(localStorage.getItem(place)!) as Item).sort((one, other) => one.at - other.at);
}

/** A browser without room for it has it in this tab only. */
function keep(item: Item): void {
  try {
    localStorage.setItem(PLACE + item.body.key, JSON.stringify(item));
  } catch {
    return;
  }
}

/** The one outbox of this tab. */
export const outbox = new Outbox();
