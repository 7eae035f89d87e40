// The fields of taskcast's views that the checker reads.
export const canSee = (user, task) => task.createdBy === user.id || (task.orgId === user.orgId && !task.isPrivate);

export const summary = ({ _id, title, status, createdBy, orgId, isPrivate, updatedAt }) => ({ _id, taskId: _id, title, status, createdBy, orgId, isPrivate: Boolean(isPrivate), updatedAt });

export const state = (task) => ({ ...summary(task), events: task.events ?? [] });

/** The dashboard rooms that may see a task. With these rooms, sending needs no permission check. */
export const dashboardsOf = ({ createdBy, orgId, isPrivate }) => [`dashboard:user:${createdBy}`, ...(isPrivate ? [] : [`dashboard:org:${orgId}`])];
