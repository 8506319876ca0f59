import { Empty, Head } from "../lib/ui";

export default function Usage() {
  return (
    <>
      <Head title="Usage" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
