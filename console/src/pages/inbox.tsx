import { Empty, Head } from "../lib/ui";

export default function Inbox() {
  return (
    <>
      <Head title="Inbox" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
