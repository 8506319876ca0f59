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
      decide={(decision) => stream.respond({ decisions: [decision] })}
      line={(message) => <Message stream={stream} message={message} />}
    />
  );
}

function Message({ stream, message }) {
  const checkpoint = useMessageMetadata(stream, message.id)?.parentCheckpointId;
  const from = checkpoint && { forkFrom: checkpoint };
  return message.type === "human" ? (
    <Line message={message} edit={from && ((text) => stream.submit(human(text), from))} />
  ) : (
    <Line message={message} redo={from && (() => stream.submit(null, from))} />
  );
}

createRoot(document.getElementById("root")).render(<Page />);
