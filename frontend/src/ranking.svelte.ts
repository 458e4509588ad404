/** What a person is ranking: the task, the order so far, and the way to the next task and back. */

import { ask, type Judged, type Progress, type Task, type Verdict } from "./api.ts";
import { draftOf, keepDraft } from "./drafts.ts";
import { orderOf, ranksOf, type Order } from "./order.ts";
import { outbox } from "./outbox.svelte.ts";
import { session } from "./session.svelte.ts";

const LONGEST_SECONDS = 86_400; // that the server takes

export class Ranking {
  task = $state<Task | null>(null);
  progress = $state<Progress | null>(null);
  order = $state.raw<Order>([]);
  grades = $state<Record<string, number>>({});
  reason = $state("");
  isLoading = $state(true);
  isSaving = $state(false);
  failure = $state("");
  isEnd = $state(false); // nothing was judged before this one
  isPair = $derived(this.task?.answers.length === 2);
  isWhole = $derived(this.task !== null && this.order.flat().length === this.task.answers.length);
  private since = 0;

  /** The next task that is open. */
  async next(): Promise<void> {
    await this.show(async () => (await ask<{ task: Task | null }>("GET", "/api/tasks/next")).task);
    try {
      this.progress = await ask<Progress>("GET", "/api/progress");
    } catch {
      this.progress = null; // figures beside the work; the task itself tells what fails
    }
  }

  /** The task that was judged before the shown one, with what was said about it. */
  async back(): Promise<void> {
    this.isEnd = false;
    await this.show(async () => {
      const { rankings } = await ask<{ rankings: Judged[] }>("GET", "/api/rankings");
      const judged = [...new Set(rankings.map((one) => one.comparison))];
      const before = judged[judged.indexOf(this.task?.comparison ?? -1) + 1];
      this.isEnd = before === undefined;
      return before === undefined ? this.task : (await ask<{ task: Task }>("GET", `/api/comparisons/${before}`)).task;
    });
  }

  /** Keep what the person did, also over a reload. */
  put(order: Order): void {
    this.order = order;
    this.keep();
  }

  /** Grade an answer; the same grade again takes it away. */
  grade(answer: number, grade: number): void {
    if (this.grades[answer] === grade) delete this.grades[answer];
    else this.grades[answer] = grade;
    this.keep();
  }

  /** Keep the draft of this task. */
  keep(): void {
    if (this.task) keepDraft(this.place, JSON.stringify({ order: this.order, grades: this.grades, reason: this.reason }));
  }

  /** Save the verdict, then show the next task. */
  async confirm(outcome: Verdict["outcome"]): Promise<void> {
    if (!this.task || this.isSaving || (outcome === "ranked" && !this.isWhole)) return;
    this.isSaving = true;
    try {
      const isSaved = await outbox.send(`/api/comparisons/${this.task.comparison}/rankings`, {
        outcome,
        ranks: outcome === "ranked" ? ranksOf(this.order) : {},
        grades: outcome === "ranked" ? $state.snapshot(this.grades) : {},
        reason: this.reason.trim(),
        seconds: Math.min(LONGEST_SECONDS, Math.round((performance.now() - this.since) / 1000)),
      });
      if (!isSaved) return;
      keepDraft(this.place, "");
    } finally {
      this.isSaving = false;
    }
    await this.next();
  }

  private get place(): string {
    return `rank ${this.task?.comparison}`;
  }

  private async show(find: () => Promise<Task | null>): Promise<void> {
    this.isLoading = true;
    try {
      this.task = await find();
      this.failure = "";
    } catch (error) {
      this.failure = session.told(error);
      return;
    } finally {
      this.isLoading = false;
    }
    const said = this.task?.verdict;
    const draft = this.task && draftOf(this.place);
    const { order, grades, reason } = draft
      ? (JSON.parse(draft) as { order: Order; grades: Record<string, number>; reason: string })
      : { order: orderOf(said?.ranks ?? {}), grades: { ...said?.grades }, reason: said?.reason ?? "" };
    this.order = order;
    this.grades = grades;
    this.reason = reason;
    this.since = performance.now();
  }
}
