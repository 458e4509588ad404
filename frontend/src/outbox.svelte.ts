/** Labels on their way: kept in this browser until the server has them, and sent again under the same key. */

import { ApiError, ask, newKey } from "./api.ts";
import { session } from "./session.svelte.ts";

type Item = { owner: number; path: string; body: Record<string, unknown> & { key: string } };

const PLACE = "outbox ";
const LONGEST_WAIT = 15_000;

class Outbox {
  waiting = $state<Item[]>(kept());
  refused = $state<{ why: string; text: string } | null>(null);
  private sending: Promise<void> | null = null;
  private wake: (() => void) | null = null;

  constructor() {
    addEventListener("online", () => this.wake?.());
  }

  /** Whether something of this person's is not saved yet. */
  get isWaiting(): boolean {
    return this.mine !== undefined;
  }

  /** Whether the server took it; resolves once it did or refused it for good. */
  async send(path: string, body: Record<string, unknown>): Promise<boolean> {
    const item = { owner: session.me!.id, path, body: { ...body, key: newKey() } };
    this.waiting = [...this.waiting, item];
    localStorage.setItem(PLACE + item.body.key, JSON.stringify(item));
    await this.flush();
    return this.refused?.text !== textOf(item);
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
        this.refused = { why: error.message, text: textOf(item) };
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
  return places.map((place) => JSON.parse(localStorage.getItem(place)!) as Item);
}

function textOf(item: Item): string {
  return JSON.stringify(item.body);
}

/** The one outbox of this tab. */
export const outbox = new Outbox();
