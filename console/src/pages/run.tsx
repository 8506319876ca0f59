import { Empty, Head } from "../lib/ui";

export default function Run() {
  return (
    <>
      <Head title="Run" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
