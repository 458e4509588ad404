/** Whether a key press is somebody's writing, or belongs to an open dialog, and so is no shortcut. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target;
  return (
    event.isComposing ||
    event.ctrlKey ||
    event.metaKey ||
    (target instanceof Element && target.closest("input, textarea, select, dialog, [contenteditable]") !== null)
  );
}
