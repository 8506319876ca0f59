import { Empty, Head } from "../lib/ui";

export default function Workers() {
  return (
    <>
      <Head title="Workers" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
