/** One conversation: its tree, the branch that is shown, and the answer that is being written. */

import { SvelteMap } from "svelte/reactivity";
import { ApiError, ask, stream, type Message, type Sampling } from "./api.ts";
import { session } from "./session.svelte.ts";
import { branch } from "./tree.ts";

/** Who answers and how. */
export type Asked = { model: string; sampling: Sampling };
type Live = { parent: number; text: string; isBroken: boolean };

const TITLE_LENGTH = 60;
const LOOKS_FOR_STOPPED = 5;

export class Conversation {
  id = $state<number | null>(null);
  messages = $state<Message[]>([]);
  chosen = new SvelteMap<number | null, number>();
  live = $state<Live | null>(null);
  failure = $state("");
  isLoading = $state(false);
  /** The branch from its root, cut where an answer is being written. */
  turns = $derived.by(() => {
    const all = branch(this.messages, this.chosen);
    const at = all.findIndex((turn) => turn.message.id === this.live?.parent);
    return at < 0 ? all : all.slice(0, at + 1);
  });
  last = $derived(this.turns.at(-1)?.message ?? null);
  isAnswering = $derived(this.live !== null && !this.live.isBroken);
  private abort: AbortController | null = null;

  async open(id: number | null): Promise<void> {
    this.stop();
    this.id = id;
    this.messages = [];
    this.chosen.clear();
    this.live = null;
    this.failure = "";
    if (id === null) return;
    this.isLoading = true;
    try {
      await this.load();
      // An answer that a reload stopped is saved a moment later.
      for (let look = 0; look < 2 && this.id === id && this.last?.role === "user"; look++) {
        await later(400);
        await this.load();
      }
    } catch (error) {
      this.failure = session.told(error);
    } finally {
      this.isLoading = false;
    }
  }

  /**
   * The number of what was said, null where the server does not have it. A new conversation is made first, with its
   * system prompt if there is one. Whoever opens another conversation meanwhile sees nothing of it there.
   */
  async say(content: string, parent: number | null, system: string): Promise<number | null> {
    let chat = this.id;
    this.failure = "";
    try {
      if (chat === null) {
        const title = content.trim().split("\n")[0]!.slice(0, TITLE_LENGTH);
        chat = (await ask<{ id: number }>("POST", "/api/chats", { title })).id;
        this.id ??= chat;
        if (system.trim()) parent = await this.add(chat, "system", system, null);
      }
      return await this.add(chat, "user", content, parent);
    } catch (error) {
      const told = session.told(error);
      if (this.id === chat) this.failure = told;
      return null;
    }
  }

  /** Whether another system prompt, from which a new branch grows, was saved. */
  async begin(system: string): Promise<boolean> {
    const chat = this.id!;
    this.failure = "";
    try {
      await this.add(chat, "system", system, null);
      return true;
    } catch (error) {
      const told = session.told(error);
      if (this.id === chat) this.failure = told;
      return false;
    }
  }

  /** Have a user's message answered, beside the answers it has. */
  async answer(parent: number, asked: Asked): Promise<void> {
    const before = this.childrenOf(parent).length;
    const mine = new AbortController();
    this.abort = mine;
    this.failure = "";
    this.live = { parent, text: "", isBroken: false };
    const isShown = () => this.abort === mine;
    let told = "";
    try {
      await stream(`/api/chats/${this.id}/answers`, { parent, ...asked }, mine.signal, (text) => {
        if (isShown()) this.live!.text += text;
      });
    } catch (error) {
      if (!isShown()) return;
      if (!mine.signal.aborted) told = error instanceof ApiError && error.status === 0 ? session.words.broken : session.told(error);
    }
    try {
      await this.load();
      for (let look = 1; look < LOOKS_FOR_STOPPED && isShown() && this.childrenOf(parent).length === before; look++) {
        if (!mine.signal.aborted || !this.live?.text) break;
        await later(300);
        await this.load();
      }
    } catch (error) {
      told ||= session.told(error);
    }
    if (!isShown()) return;
    const made = this.childrenOf(parent);
    if (made.length > before) this.chosen.set(parent, made.at(-1)!.id);
    this.failure = told;
    if (made.length > before || !told) this.live = null;
    else this.live!.isBroken = true;
  }

  /** What was said so far stays. */
  stop(): void {
    this.abort?.abort();
  }

  private async load(): Promise<void> {
    const id = this.id;
    const { messages } = await ask<{ messages: Message[] }>("GET", `/api/chats/${id}`);
    if (this.id === id) this.messages = messages;
  }

  private async add(chat: number, role: "system" | "user", content: string, parent_id: number | null): Promise<number> {
    const { id } = await ask<{ id: number }>("POST", `/api/chats/${chat}/messages`, { parent: parent_id, role, content });
    if (this.id !== chat) return id;
    const isLoaded = this.messages.some((message) => message.id === id);
    if (!isLoaded) this.messages.push({ id, parent_id, role, content, model: "", details: {}, opinion: null, edit: null });
    this.chosen.set(parent_id, id);
    this.live = null;
    return id;
  }

  private childrenOf(parent: number): Message[] {
    return this.messages.filter((message) => message.parent_id === parent);
  }
}

function later(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds));
}
