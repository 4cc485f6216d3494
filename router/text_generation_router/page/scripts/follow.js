// Keeps what grows in sight, unless the reader has scrolled away from it.

const NEAR = 80;

const atEnd = () => window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - NEAR;

/** Follow the growth of an element from now on. Returns what ends it. */
export function follow(root) {
  let wanted = true;
  const look = () => (wanted = atEnd());
  const grow = new ResizeObserver(() => wanted && window.scrollTo(0, document.documentElement.scrollHeight));
  window.addEventListener("scroll", look, { passive: true });
  grow.observe(root);
  return () => {
    // After the last layout: what is told at the end has its height too.
    requestAnimationFrame(() => requestAnimationFrame(() => grow.disconnect()));
    window.removeEventListener("scroll", look);
  };
}
