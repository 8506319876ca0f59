import { Empty, Head } from "../lib/ui";

export default function Overview() {
  return (
    <>
      <Head title="Overview" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
