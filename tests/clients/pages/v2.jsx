import { useMessageMetadata, useStream } from "@langchain/react";
import { createRoot } from "react-dom/client";
import { Chat, Line, apiUrl, assistantId, transport, useThread } from "./chat.jsx";

const human = (content) => ({ messages: [{ type: "human", content }] });

function Page() {
  const [threadId, onThreadId] = useThread();
  const stream = useStream({ apiUrl, assistantId, threadId, onThreadId, transport });
  return (
    <Chat
      messages={stream.messages}
      loading={stream.isLoading}
      error={stream.error}
      interrupt={stream.interrupt}
      send={(text) => stream.submit(human(text))}
      stop={() => stream.stop()}
      decide={(decision) => stream.respond({ decisions: [decision] }, { interruptId: stream.interrupt.id })}
      line={(message) => <Message stream={stream} message={message} />}
    />
  );
}

function Message({ stream, message }) {
  // The checkpoint that this version of the hook knows for a message is of the last step it was seen in, not the first.
  const from = async () => {
    const states = await stream.client.threads.getHistory(stream.threadId, { limit: 100 });
    const first = states.findLast((state) => state.values.messages?.some((one) => one.id === message.id));
    return { forkFrom: first.parent_checkpoint.checkpoint_id };
  };
  const known = useMessageMetadata(stream, message.id)?.parentCheckpointId;
  return message.type === "human" ? (
    <Line message={message} edit={known && (async (text) => stream.submit(human(text), await from()))} />
  ) : (
    <Line message={message} redo={known && (async () => stream.submit(null, await from()))} />
  );
}

createRoot(document.getElementById("root")).render(<Page />);
