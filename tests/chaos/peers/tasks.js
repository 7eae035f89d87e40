// The same documents as taskcast's views, as far as the checker reads them.
export const canSee = (user, task) => task.createdBy === user.id || (task.orgId === user.orgId && !task.isPrivate);

export const summary = ({ _id, title, status, createdBy, orgId, isPrivate, updatedAt }) => ({ _id, taskId: _id, title, status, createdBy, orgId, isPrivate: Boolean(isPrivate), updatedAt });

export const state = (task) => ({ ...summary(task), events: task.events ?? [] });

/** Rooms of a dashboard: nobody's permission has to be looked at when something is sent. */
export const dashboardsOf = ({ createdBy, orgId, isPrivate }) => [`dashboard:user:${createdBy}`, ...(isPrivate ? [] : [`dashboard:org:${orgId}`])];
