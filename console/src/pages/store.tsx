import { Empty, Head } from "../lib/ui";

export default function Store() {
  return (
    <>
      <Head title="Store" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
