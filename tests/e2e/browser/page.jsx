// One tab, which shows the list or one task, as the existing client mounts them.
import { createRoot } from 'react-dom/client';
import { MemoryRouter, Route, Routes } from 'react-router-dom';

import { TaskDashboard } from 'existing-client/components/TaskDashboard';
import { TaskDetail } from 'existing-client/components/TaskDetail';

globalThis.sockets = [];
globalThis.received = [];

globalThis.mount = (path) => {
  const root = createRoot(document.getElementById('root'));
  root.render(
    <MemoryRouter initialEntries={[path]}>
      <Routes>
        <Route path="/" element={<TaskDashboard />} />
        <Route path="/tasks/:taskId" element={<TaskDetail />} />
      </Routes>
    </MemoryRouter>,
  );
  globalThis.unmount = () => root.unmount();
};
