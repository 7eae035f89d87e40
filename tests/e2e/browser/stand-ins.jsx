// The two components of the existing client that were not handed over. They show everything they are given.
export function TaskCard({ task }) {
  return <article className="task-card" data-task={JSON.stringify(task)} />;
}

export function StatusBadge({ status }) {
  return <span className="status-badge">{status}</span>;
}
